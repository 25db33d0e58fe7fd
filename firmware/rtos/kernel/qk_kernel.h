/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QK_KERNEL_H
#define QK_KERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cmsis_os2.h"

/* Inside the kernel: control blocks, scheduler and what it needs from a port.
 *
 * Everything below runs with the kernel lock held unless it says otherwise. The lock masks all interrupts that may call
 * the kernel; a context switch that was requested under the lock happens when the lock is let go. */

#define QK_PRIORITY_COUNT 57 /* osPriorityNone .. osPriorityISR */

struct qk_thread;

/* Threads in the order in which they will be served. */
struct qk_thread_list {
	struct qk_thread *first, *last;
};

struct qk_mutex;

struct qk_thread {
	void *stack_pointer; /* first member: the context switch finds it here */
	struct qk_thread *next, *previous;
	struct qk_thread_list *list; /* that it is on: ready list or waiters of an object */
	struct qk_thread *delay_next, *delay_previous;
	struct qk_thread *all_next;
	uint32_t wake_tick;
	bool delayed;
	uint8_t state; /* osThreadState_t */
	int8_t base_priority, priority;
	osStatus_t wait_result;
	/* What this thread waits for, filled in by the object that it waits on. */
	uint32_t wait_flags, wait_options, flags_result;
	void *wait_buffer;
	struct qk_mutex *wait_mutex;
	struct qk_mutex *held; /* mutexes owned, newest first */
	const char *name;
	void *stack;
	uint32_t stack_bytes;
};

struct qk_semaphore {
	struct qk_thread_list waiters;
	uint32_t count, max;
};

struct qk_mutex {
	struct qk_thread_list waiters;
	struct qk_thread *owner;
	struct qk_mutex *held_next;
	uint32_t depth;
	uint32_t attributes;
};

struct qk_event_flags {
	struct qk_thread_list waiters;
	uint32_t flags;
};

struct qk_message_queue {
	struct qk_thread_list getters, putters;
	uint8_t *memory;
	uint32_t message_bytes, capacity, head, count;
};

struct qk_timer {
	struct qk_timer *next;
	osTimerFunc_t function;
	void *argument;
	uint32_t period, due;
	osTimerType_t type;
	bool running;
};

#define QK_TIMER_STACK_BYTES 1024u

extern struct qk_thread *volatile qk_current;
extern struct qk_thread *volatile qk_next;
extern volatile uint32_t qk_switch_count;

/* Scheduler */
void qk_list_append(struct qk_thread_list *list, struct qk_thread *thread);
void qk_list_remove(struct qk_thread *thread);
void qk_make_ready(struct qk_thread *thread);
/* Wakes a blocked thread with the result of its wait. */
void qk_wake(struct qk_thread *thread, osStatus_t result);
/* Blocks the running thread on `waiters` (NULL: a mere delay), lets go of the lock and returns its wait result. */
osStatus_t qk_block(struct qk_thread_list *waiters, uint32_t timeout, uint32_t lock);
void qk_set_priority(struct qk_thread *thread, int8_t priority);
/* Recomputes a priority from the base and the waiters of the held mutexes, along the chain of owners. */
void qk_inherit(struct qk_thread *thread);
void qk_mutexes_drop(struct qk_thread *thread);
void qk_schedule(void);
/* Called by the port when time has passed; `rotate` gives the next thread of equal priority its turn. Takes the lock.
 */
void qk_tick(uint32_t now, bool rotate);
/* The tick at which the next delayed thread wakes; false if none is delayed. */
bool qk_next_wake(uint32_t *tick);
void qk_timers_start(void);
uint32_t qk_tick_now(void);

/* Port: what the kernel needs from a processor */
#define QK_TICK_HZ 1000u
uint32_t qk_port_lock(void);
void qk_port_unlock(uint32_t lock);
bool qk_port_in_isr(void);
void qk_port_request_switch(void);
void *qk_port_stack_init(struct qk_thread *thread, osThreadFunc_t function, void *argument);
void qk_port_start(void); /* starts the clock and the first thread; does not return on the target */
void qk_port_idle(void); /* sleeps until an interrupt or the next wake-up; called by the idle thread without the lock */
uint64_t qk_port_counter(void);
uint32_t qk_port_counter_hz(void);

#endif
