/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <ucontext.h>

#include "qk_host_kernel.h"
#include "qk_kernel.h"

/* The kernel on a host: threads are user contexts, and time moves only when everybody sleeps or when a test says so.
 * Switches happen when the lock is let go, as on the target; nothing preempts a thread between two kernel calls. */

#define THREADS_MAX 64

static struct {
	struct qk_thread *thread;
	ucontext_t context;
	osThreadFunc_t function;
	void *argument;
} slots[THREADS_MAX];
static unsigned slot_count;
static ucontext_t main_context;
static uint32_t lock_depth;
static bool switch_wanted, finished, in_isr;
static uint32_t now;
uint32_t qk_host_end_tick;

static ucontext_t *context_of(const struct qk_thread *thread)
{
	for (unsigned i = slot_count; i-- > 0;) {
		if (slots[i].thread == thread) {
			return &slots[i].context;
		}
	}
	abort();
}

static void switch_now(void)
{
	struct qk_thread *from = qk_current;

	switch_wanted = false;
	if (qk_next == from) {
		return;
	}
	qk_current = qk_next;
	qk_switch_count++;
	swapcontext(context_of(from), context_of(qk_current));
}

uint32_t qk_port_lock(void)
{
	return lock_depth++;
}

void qk_port_unlock(uint32_t lock)
{
	lock_depth = lock;
	if (!lock && switch_wanted && !in_isr && qk_current) {
		switch_now();
	}
}

bool qk_port_in_isr(void)
{
	return in_isr;
}

void qk_port_request_switch(void)
{
	switch_wanted = true;
}

static void enter(unsigned index)
{
	slots[index].function(slots[index].argument);
	osThreadExit();
}

void *qk_port_stack_init(struct qk_thread *thread, osThreadFunc_t function, void *argument)
{
	unsigned index = slot_count++;

	if (index >= THREADS_MAX) {
		abort();
	}
	slots[index].thread = thread;
	slots[index].function = function;
	slots[index].argument = argument;
	getcontext(&slots[index].context);
	/* The sanitizers need more stack than the target: the thread's own memory is only measured, not run on. */
	slots[index].context.uc_stack.ss_size = 256 * 1024;
	slots[index].context.uc_stack.ss_sp = malloc(slots[index].context.uc_stack.ss_size);
	slots[index].context.uc_link = NULL;
	makecontext(&slots[index].context, (void (*)(void))enter, 1, index);
	return thread;
}

void qk_port_start(void)
{
	qk_current = qk_next;
	finished = false;
	swapcontext(&main_context, context_of(qk_current));
	qk_current = NULL;
	for (unsigned i = 0; i < slot_count; i++) {
		free(slots[i].context.uc_stack.ss_sp);
	}
	slot_count = 0;
	lock_depth = 0;
	switch_wanted = false;
}

/* Everybody sleeps: jump to the next wake-up. The run ends at qk_host_end_tick. */
void qk_port_idle(void)
{
	uint32_t wake;

	if (!qk_next_wake(&wake) || (int32_t)(wake - qk_host_end_tick) > 0) {
		finished = true;
		setcontext(&main_context);
	}
	now = wake;
	qk_tick(now, false);
}

void qk_host_pass(uint32_t ticks)
{
	for (uint32_t i = 0; i < ticks; i++) {
		qk_tick(++now, true);
	}
}

void qk_host_interrupt(void (*handler)(void))
{
	in_isr = true;
	handler();
	in_isr = false;
	qk_port_unlock(0);
}

void qk_host_start_at(uint32_t tick)
{
	now = tick;
}

uint64_t qk_port_counter(void)
{
	return now;
}

uint32_t qk_port_counter_hz(void)
{
	return QK_TICK_HZ;
}
