/* SPDX-License-Identifier: Apache-2.0 */
#include "qk_app.h"

/* `quarkctl build rtos --sabotage KIND` builds an image that fails in a known way, to prove that a test boot catches
 * it. */

#if defined(QK_SABOTAGE_HANG) || defined(QK_SABOTAGE_FAULT) || defined(QK_SABOTAGE_STACK)

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

static void run(void *argument)
{
	(void)argument;
	(void)osDelay(300);
#ifdef QK_SABOTAGE_HANG
	for (;;) {
		__asm volatile("nop");
	}
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
