/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "qk_kernel.h"

/* One first-in first-out ready list a priority: equals take turns whatever wakes in between. */
static struct qk_thread_list ready[QK_PRIORITY_COUNT];
static uint64_t ready_mask;
static struct qk_thread *delayed; /* sorted by wake tick */
static struct qk_thread *all;
static uint32_t tick;
static osKernelState_t kernel_state;

struct qk_thread *volatile qk_current;
struct qk_thread *volatile qk_next;
volatile uint32_t qk_switch_count;

static struct qk_thread idle_thread;
static uint64_t idle_stack[64];

/* --- lists ------------------------------------------------------------------------------------------------------- */

void qk_list_append(struct qk_thread_list *list, struct qk_thread *thread)
{
	thread->list = list;
	thread->next = NULL;
	thread->previous = list->last;
	if (list->last) {
		list->last->next = thread;
	} else {
		list->first = thread;
	}
	list->last = thread;
}

/* Waiters: by priority, equals in the order of their coming. */
static void insert_waiter(struct qk_thread_list *list, struct qk_thread *thread)
{
	struct qk_thread *after = list->last;

	while (after && after->priority < thread->priority) {
		after = after->previous;
	}
	thread->list = list;
	thread->previous = after;
	thread->next = after ? after->next : list->first;
	if (thread->next) {
		thread->next->previous = thread;
	} else {
		list->last = thread;
	}
	if (after) {
		after->next = thread;
	} else {
		list->first = thread;
	}
}

void qk_list_remove(struct qk_thread *thread)
{
	struct qk_thread_list *list = thread->list;

	if (!list) {
		return;
	}
	if (thread->previous) {
		thread->previous->next = thread->next;
	} else {
		list->first = thread->next;
	}
	if (thread->next) {
		thread->next->previous = thread->previous;
	} else {
		list->last = thread->previous;
	}
	thread->list = NULL;
	if (list >= ready && list < ready + QK_PRIORITY_COUNT && !list->first) {
		ready_mask &= ~(1ull << (list - ready));
	}
}

static void delay_insert(struct qk_thread *thread, uint32_t wake_tick)
{
	struct qk_thread *before = delayed, *after = NULL;

	thread->wake_tick = wake_tick;
	while (before && (int32_t)(before->wake_tick - wake_tick) <= 0) {
		after = before;
		before = before->delay_next;
	}
	thread->delay_next = before;
	thread->delay_previous = after;
	if (before) {
		before->delay_previous = thread;
	}
	if (after) {
		after->delay_next = thread;
	} else {
		delayed = thread;
	}
	thread->delayed = true;
}

static void delay_remove(struct qk_thread *thread)
{
	if (!thread->delayed) {
		return;
	}
	if (thread->delay_previous) {
		thread->delay_previous->delay_next = thread->delay_next;
	} else {
		delayed = thread->delay_next;
	}
	if (thread->delay_next) {
		thread->delay_next->delay_previous = thread->delay_previous;
	}
	thread->delayed = false;
}

/* --- scheduling -------------------------------------------------------------------------------------------------- */

void qk_make_ready(struct qk_thread *thread)
{
	thread->state = osThreadReady;
	qk_list_append(&ready[thread->priority], thread);
	ready_mask |= 1ull << thread->priority;
}

/* The running thread stays at the head of its ready list; so the head of the highest list is always the one to run. */
void qk_schedule(void)
{
	uint32_t high = (uint32_t)(ready_mask >> 32), low = (uint32_t)ready_mask;
	unsigned priority = high ? 63u - (unsigned)__builtin_clz(high) : 31u - (unsigned)__builtin_clz(low | 1u);

	qk_next = ready[priority].first;
	if (kernel_state == osKernelRunning && qk_next != qk_current) {
		qk_port_request_switch();
	}
}

void qk_wake(struct qk_thread *thread, osStatus_t result)
{
	qk_list_remove(thread);
	delay_remove(thread);
	thread->wait_result = result;
	qk_make_ready(thread);
	qk_schedule();
}

osStatus_t qk_block(struct qk_thread_list *waiters, uint32_t timeout, uint32_t lock)
{
	struct qk_thread *self = qk_current;

	qk_list_remove(self);
	self->state = osThreadBlocked;
	self->wait_result = osErrorTimeout;
	if (waiters) {
		insert_waiter(waiters, self);
	}
	if (timeout != osWaitForever) {
		delay_insert(self, tick + timeout);
	}
	qk_schedule();
	qk_port_unlock(lock); /* the switch happens here; what follows runs when this thread is back */
	return self->wait_result;
}

void qk_set_priority(struct qk_thread *thread, int8_t priority)
{
	if (thread->priority == priority) {
		return;
	}
	if (thread->state == osThreadBlocked) {
		struct qk_thread_list *list = thread->list;

		thread->priority = priority;
		if (list) {
			qk_list_remove(thread);
			insert_waiter(list, thread);
		}
		return;
	}
	qk_list_remove(thread);
	thread->priority = priority;
	qk_make_ready(thread);
}

void qk_tick(uint32_t now, bool rotate)
{
	uint32_t lock = qk_port_lock();
	struct qk_thread *self = qk_current;

	tick = now;
	while (delayed && (int32_t)(now - delayed->wake_tick) >= 0) {
		struct qk_thread *thread = delayed;
		struct qk_mutex *mutex = thread->wait_mutex;

		qk_wake(thread, osErrorTimeout);
		thread->wait_mutex = NULL;
		if (mutex && mutex->owner) {
			qk_inherit(mutex->owner); /* a waiter gave up: its priority is no longer lent */
		}
	}
	/* Rotation at every tick, not only after a full slice: else a third thread that wakes at each tick starves the
	 * second of two equals. */
	if (rotate && self && self->list == &ready[self->priority] && self->next) {
		struct qk_thread_list *list = self->list;

		qk_list_remove(self);
		qk_list_append(list, self);
		ready_mask |= 1ull << self->priority;
	}
	qk_schedule();
	qk_port_unlock(lock);
}

bool qk_next_wake(uint32_t *wake)
{
	if (!delayed) {
		return false;
	}
	*wake = delayed->wake_tick;
	return true;
}

uint32_t qk_tick_now(void)
{
	return tick;
}

/* --- kernel ------------------------------------------------------------------------------------------------------ */

static void idle(void *argument)
{
	(void)argument;
	for (;;) {
		qk_port_idle();
	}
}

osStatus_t osKernelInitialize(void)
{
	static const osThreadAttr_t attributes = {
	    .name = "idle",
	    .cb_mem = &idle_thread,
	    .cb_size = sizeof idle_thread,
	    .stack_mem = idle_stack,
	    .stack_size = sizeof idle_stack,
	    .priority = osPriorityIdle,
	};

	if (kernel_state == osKernelRunning) {
		return osError;
	}
	memset(ready, 0, sizeof ready);
	ready_mask = 0;
	delayed = all = NULL;
	qk_current = qk_next = NULL;
	qk_switch_count = 0;
	kernel_state = osKernelReady;
	(void)osThreadNew(idle, NULL, &attributes);
	qk_timers_start();
	return osOK;
}

osKernelState_t osKernelGetState(void)
{
	return kernel_state;
}

osStatus_t osKernelStart(void)
{
	if (kernel_state != osKernelReady) {
		return osError;
	}
	qk_schedule();
	tick = (uint32_t)(qk_port_counter() / (qk_port_counter_hz() / QK_TICK_HZ));
	kernel_state = osKernelRunning;
	qk_port_start();
	kernel_state = osKernelInactive; /* only the host port comes back */
	return osOK;
}

uint32_t osKernelGetTickCount(void)
{
	return tick;
}

uint32_t osKernelGetTickFreq(void)
{
	return QK_TICK_HZ;
}

uint32_t osKernelGetSysTimerCount(void)
{
	return (uint32_t)qk_port_counter();
}

uint32_t osKernelGetSysTimerFreq(void)
{
	return qk_port_counter_hz();
}

/* --- threads ----------------------------------------------------------------------------------------------------- */

#define STACK_FILL 0xa5u

osThreadId_t osThreadNew(osThreadFunc_t func, void *argument, const osThreadAttr_t *attr)
{
	struct qk_thread *thread;
	uint32_t lock;
	int priority;

	if (qk_port_in_isr() || kernel_state == osKernelInactive || !func || !attr || !attr->cb_mem ||
	    attr->cb_size < sizeof *thread || !attr->stack_mem || attr->stack_size < 256u || attr->attr_bits) {
		return NULL;
	}
	priority = attr->priority == osPriorityNone ? osPriorityNormal : (int)attr->priority;
	if (priority < osPriorityIdle || priority > osPriorityISR) {
		return NULL;
	}
	thread = attr->cb_mem;
	memset(thread, 0, sizeof *thread);
	memset(attr->stack_mem, STACK_FILL, attr->stack_size);
	thread->name = attr->name ? attr->name : "";
	thread->stack = attr->stack_mem;
	thread->stack_bytes = attr->stack_size;
	thread->base_priority = thread->priority = (int8_t)priority;
	thread->stack_pointer = qk_port_stack_init(thread, func, argument);
	lock = qk_port_lock();
	thread->all_next = all;
	all = thread;
	qk_make_ready(thread);
	qk_schedule();
	qk_port_unlock(lock);
	return thread;
}

const char *osThreadGetName(osThreadId_t thread_id)
{
	return thread_id ? ((struct qk_thread *)thread_id)->name : NULL;
}

osThreadId_t osThreadGetId(void)
{
	return qk_current;
}

osThreadState_t osThreadGetState(osThreadId_t thread_id)
{
	if (!thread_id) {
		return osThreadError;
	}
	return thread_id == qk_current ? osThreadRunning : (osThreadState_t)((struct qk_thread *)thread_id)->state;
}

uint32_t osThreadGetStackSize(osThreadId_t thread_id)
{
	return thread_id ? ((struct qk_thread *)thread_id)->stack_bytes : 0;
}

uint32_t osThreadGetStackSpace(osThreadId_t thread_id)
{
	struct qk_thread *thread = thread_id;
	uint32_t free_bytes = 0;

	if (!thread) {
		return 0;
	}
	while (free_bytes < thread->stack_bytes && ((uint8_t *)thread->stack)[free_bytes] == STACK_FILL) {
		free_bytes++;
	}
	return free_bytes;
}

osStatus_t osThreadSetPriority(osThreadId_t thread_id, osPriority_t priority)
{
	struct qk_thread *thread = thread_id;
	uint32_t lock;

	if (qk_port_in_isr()) {
		return osErrorISR;
	}
	if (!thread || priority < osPriorityIdle || priority > osPriorityISR) {
		return osErrorParameter;
	}
	lock = qk_port_lock();
	if (thread->state == osThreadTerminated) {
		qk_port_unlock(lock);
		return osErrorResource;
	}
	thread->base_priority = (int8_t)priority;
	qk_inherit(thread);
	qk_schedule();
	qk_port_unlock(lock);
	return osOK;
}

osPriority_t osThreadGetPriority(osThreadId_t thread_id)
{
	return thread_id ? (osPriority_t)((struct qk_thread *)thread_id)->priority : osPriorityError;
}

osStatus_t osThreadYield(void)
{
	uint32_t lock;
	struct qk_thread *self;

	if (qk_port_in_isr()) {
		return osErrorISR;
	}
	lock = qk_port_lock();
	self = qk_current;
	if (self->next) {
		qk_list_remove(self);
		qk_make_ready(self);
		qk_schedule();
	}
	qk_port_unlock(lock);
	return osOK;
}

static void terminate(struct qk_thread *thread)
{
	struct qk_mutex *waited = thread->wait_mutex;

	qk_list_remove(thread);
	delay_remove(thread);
	thread->state = osThreadTerminated;
	thread->wait_mutex = NULL;
	for (struct qk_thread **link = &all; *link; link = &(*link)->all_next) {
		if (*link == thread) {
			*link = thread->all_next;
			break;
		}
	}
	if (waited && waited->owner) {
		qk_inherit(waited->owner);
	}
	qk_mutexes_drop(thread);
	qk_schedule();
}

void osThreadExit(void)
{
	uint32_t lock = qk_port_lock();

	terminate(qk_current);
	qk_port_unlock(lock);
	for (;;) {
	}
}

osStatus_t osThreadTerminate(osThreadId_t thread_id)
{
	struct qk_thread *thread = thread_id;
	uint32_t lock;

	if (qk_port_in_isr()) {
		return osErrorISR;
	}
	if (!thread) {
		return osErrorParameter;
	}
	lock = qk_port_lock();
	if (thread->state == osThreadTerminated) {
		qk_port_unlock(lock);
		return osErrorResource;
	}
	terminate(thread);
	qk_port_unlock(lock);
	return osOK;
}

uint32_t osThreadGetCount(void)
{
	return osThreadEnumerate(NULL, 0);
}

/* With no array: the number of threads. */
uint32_t osThreadEnumerate(osThreadId_t *thread_array, uint32_t array_items)
{
	uint32_t lock = qk_port_lock(), count = 0;

	for (struct qk_thread *thread = all; thread; thread = thread->all_next) {
		if (thread_array && count == array_items) {
			break;
		}
		if (thread_array) {
			thread_array[count] = thread;
		}
		count++;
	}
	qk_port_unlock(lock);
	return count;
}

/* --- delays ------------------------------------------------------------------------------------------------------ */

osStatus_t osDelay(uint32_t ticks)
{
	uint32_t lock;

	if (qk_port_in_isr()) {
		return osErrorISR;
	}
	if (ticks == 0) {
		return osOK;
	}
	if (ticks > INT32_MAX) {
		return osErrorParameter; /* longer than the wrap-around of the comparison */
	}
	lock = qk_port_lock();
	(void)qk_block(NULL, ticks, lock);
	return osOK;
}

osStatus_t osDelayUntil(uint32_t ticks)
{
	uint32_t lock;

	if (qk_port_in_isr()) {
		return osErrorISR;
	}
	lock = qk_port_lock();
	if ((int32_t)(ticks - tick) <= 0) {
		qk_port_unlock(lock);
		return osErrorParameter;
	}
	(void)qk_block(NULL, ticks - tick, lock);
	return osOK;
}
