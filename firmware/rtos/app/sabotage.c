/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "qk_app.h"

/* `quarkctl build rtos --sabotage KIND` builds an image that fails in a known way, to prove that a test boot catches
 * it. */

#if defined(QK_SABOTAGE_HANG) || defined(QK_SABOTAGE_MASKED) || defined(QK_SABOTAGE_STALLED) ||                        \
    defined(QK_SABOTAGE_FAULT) || defined(QK_SABOTAGE_STACK)

static struct qk_thread thread;
static uint64_t stack[1024 / 8];

#ifdef QK_SABOTAGE_STACK
__attribute__((noinline)) static uint32_t deeper(volatile uint32_t depth)
{
	volatile uint8_t ballast[64];

	ballast[depth % sizeof ballast] = (uint8_t)depth;
	return depth ? deeper(depth - 1u) + ballast[0] : 0;
}
#endif

#ifdef QK_SABOTAGE_STALLED
/* All others go on, but nothing is reported any more. */
static void stall(void)
{
	osThreadId_t threads[16];
	uint32_t count = osThreadEnumerate(threads, sizeof threads / sizeof threads[0]);

	while (count--) {
		if (strcmp(osThreadGetName(threads[count]), "report") == 0) {
			(void)osThreadTerminate(threads[count]);
		}
	}
}
#endif

static void run(void *argument)
{
	(void)argument;
	(void)osDelay(300);
#ifdef QK_SABOTAGE_MASKED
	__asm volatile("cpsid i");
#endif
#if defined(QK_SABOTAGE_HANG) || defined(QK_SABOTAGE_MASKED)
	for (;;) {
		__asm volatile("nop");
	}
#endif
#ifdef QK_SABOTAGE_STALLED
	stall();
#endif
#ifdef QK_SABOTAGE_FAULT
	*(volatile uint32_t *)0xf0000000u = 1;
#endif
#ifdef QK_SABOTAGE_STACK
	(void)deeper(1000);
#endif
}

void qk_sabotage_start(void)
{
	static const osThreadAttr_t attr = {.name = "sabotage",
	                                    .cb_mem = &thread,
	                                    .cb_size = sizeof thread,
	                                    .stack_mem = stack,
	                                    .stack_size = sizeof stack,
	                                    .priority = osPriorityRealtime};

	(void)osThreadNew(run, NULL, &attr);
}

#else

void qk_sabotage_start(void)
{
}

#endif
