/* SPDX-License-Identifier: Apache-2.0 */
#include "qk_app.h"

#include "qk_port.h"

#define PERIOD_MS 500u

static volatile bool alive[QK_GUARD_COUNT];
static struct qk_thread thread;
static uint64_t stack[768 / 8];

void qk_guard_alive(unsigned index)
{
	alive[index] = true;
}

/* Below every other thread but idle: where something hogs the processor, this one does not run either. Where it runs
 * and another did not do its round, that one waits for what does not come. */
static void run(void *argument)
{
	(void)argument;
	for (;;) {
		bool all = true;

		for (unsigned i = 0; i < QK_GUARD_COUNT; i++) {
			all = all && alive[i];
		}
		if (all) {
			for (unsigned i = 0; i < QK_GUARD_COUNT; i++) {
				alive[i] = false;
			}
			qk_watchdog_kick();
		} else {
			qk_watchdog_missed(PERIOD_MS);
		}
		(void)osDelay(PERIOD_MS);
	}
}

void qk_guard_start(void)
{
	static const osThreadAttr_t attr = {.name = "guard",
	                                    .cb_mem = &thread,
	                                    .cb_size = sizeof thread,
	                                    .stack_mem = stack,
	                                    .stack_size = sizeof stack,
	                                    .priority = osPriorityLow - 1};

	(void)osThreadNew(run, NULL, &attr);
}
