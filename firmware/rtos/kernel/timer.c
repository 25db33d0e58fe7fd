/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "qk_kernel.h"

/* Callbacks run one after the other in a thread of their own, above all application threads. */
static struct qk_timer *timers; /* running ones, by due tick */
static struct qk_thread timer_thread;
static struct qk_thread_list sleeping;
static uint64_t timer_stack[QK_TIMER_STACK_BYTES / sizeof(uint64_t)];

static void insert(struct qk_timer *timer)
{
	struct qk_timer **link = &timers;

	while (*link && (int32_t)((*link)->due - timer->due) <= 0) {
		link = &(*link)->next;
	}
	timer->next = *link;
	*link = timer;
	timer->running = true;
}

static void drop(struct qk_timer *timer)
{
	for (struct qk_timer **link = &timers; *link; link = &(*link)->next) {
		if (*link == timer) {
			*link = timer->next;
			break;
		}
	}
	timer->running = false;
}

static void serve(void *argument)
{
	(void)argument;
	for (;;) {
		uint32_t lock = qk_port_lock();
		struct qk_timer *timer = timers;
		int32_t left = timer ? (int32_t)(timer->due - qk_tick_now()) : 0;

		if (!timer || left > 0) {
			(void)qk_block(&sleeping, timer ? (uint32_t)left : osWaitForever, lock);
			continue;
		}
		drop(timer);
		if (timer->type == osTimerPeriodic) {
			timer->due += timer->period; /* from the due tick, so that late service does not add up */
			insert(timer);
		}
		qk_port_unlock(lock);
		timer->function(timer->argument);
	}
}

void qk_timers_start(void)
{
	static const osThreadAttr_t attributes = {
	    .name = "timer",
	    .cb_mem = &timer_thread,
	    .cb_size = sizeof timer_thread,
	    .stack_mem = timer_stack,
	    .stack_size = sizeof timer_stack,
	    .priority = osPriorityISR,
	};

	timers = NULL;
	memset(&sleeping, 0, sizeof sleeping);
	(void)osThreadNew(serve, NULL, &attributes);
}

osTimerId_t osTimerNew(osTimerFunc_t func, osTimerType_t type, void *argument, const osTimerAttr_t *attr)
{
	struct qk_timer *timer;

	if (qk_port_in_isr() || !func || (type != osTimerOnce && type != osTimerPeriodic) || !attr || !attr->cb_mem ||
	    attr->cb_size < sizeof *timer) {
		return NULL;
	}
	timer = attr->cb_mem;
	memset(timer, 0, sizeof *timer);
	timer->function = func;
	timer->argument = argument;
	timer->type = type;
	return timer;
}

osStatus_t osTimerStart(osTimerId_t timer_id, uint32_t ticks)
{
	struct qk_timer *timer = timer_id;
	uint32_t lock;

	if (qk_port_in_isr()) {
		return osErrorISR;
	}
	if (!timer || !ticks || ticks > INT32_MAX) {
		return osErrorParameter;
	}
	lock = qk_port_lock();
	drop(timer);
	timer->period = ticks;
	timer->due = qk_tick_now() + ticks;
	insert(timer);
	if (timers == timer && sleeping.first) {
		qk_wake(sleeping.first, osOK);
	}
	qk_port_unlock(lock);
	return osOK;
}

osStatus_t osTimerStop(osTimerId_t timer_id)
{
	struct qk_timer *timer = timer_id;
	uint32_t lock;

	if (qk_port_in_isr()) {
		return osErrorISR;
	}
	if (!timer) {
		return osErrorParameter;
	}
	lock = qk_port_lock();
	if (!timer->running) {
		qk_port_unlock(lock);
		return osErrorResource;
	}
	drop(timer);
	qk_port_unlock(lock);
	return osOK;
}

uint32_t osTimerIsRunning(osTimerId_t timer_id)
{
	return timer_id && ((struct qk_timer *)timer_id)->running;
}
