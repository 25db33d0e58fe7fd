/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "qk_kernel.h"

osMutexId_t osMutexNew(const osMutexAttr_t *attr)
{
	struct qk_mutex *mutex;

	if (qk_port_in_isr() || !attr || !attr->cb_mem || attr->cb_size < sizeof *mutex ||
	    (attr->attr_bits & ~(osMutexRecursive | osMutexPrioInherit | osMutexRobust))) {
		return NULL;
	}
	mutex = attr->cb_mem;
	memset(mutex, 0, sizeof *mutex);
	mutex->attributes = attr->attr_bits;
	return mutex;
}

/* A thread runs at its own priority or at that of the most urgent thread waiting for a mutex it holds. When the
 * thread itself waits for a mutex, the loan goes on to that one's owner; the chain is as long as threads exist. */
void qk_inherit(struct qk_thread *thread)
{
	while (thread) {
		int8_t priority = thread->base_priority;

		for (struct qk_mutex *mutex = thread->held; mutex; mutex = mutex->held_next) {
			struct qk_thread *waiter = mutex->waiters.first;

			if ((mutex->attributes & osMutexPrioInherit) && waiter && waiter->priority > priority) {
				priority = waiter->priority;
			}
		}
		if (priority == thread->priority) {
			return;
		}
		qk_set_priority(thread, priority);
		thread = thread->wait_mutex ? thread->wait_mutex->owner : NULL;
	}
}

static void own(struct qk_mutex *mutex, struct qk_thread *thread)
{
	mutex->owner = thread;
	mutex->depth = 1;
	mutex->held_next = thread->held;
	thread->held = mutex;
}

static void disown(struct qk_mutex *mutex)
{
	struct qk_mutex **link = &mutex->owner->held;

	while (*link != mutex) {
		link = &(*link)->held_next;
	}
	*link = mutex->held_next;
	mutex->owner = NULL;
	mutex->depth = 0;
}

/* Hands the mutex to the most urgent waiter. */
static void pass_on(struct qk_mutex *mutex)
{
	struct qk_thread *heir = mutex->waiters.first;

	disown(mutex);
	if (heir) {
		heir->wait_mutex = NULL;
		qk_wake(heir, osOK);
		own(mutex, heir);
		qk_inherit(heir);
	}
}

osStatus_t osMutexAcquire(osMutexId_t mutex_id, uint32_t timeout)
{
	struct qk_mutex *mutex = mutex_id;
	struct qk_thread *self;
	uint32_t lock;

	if (qk_port_in_isr()) {
		return osErrorISR;
	}
	if (!mutex) {
		return osErrorParameter;
	}
	lock = qk_port_lock();
	self = qk_current;
	if (!mutex->owner) {
		own(mutex, self);
		qk_port_unlock(lock);
		return osOK;
	}
	if (mutex->owner == self && (mutex->attributes & osMutexRecursive)) {
		mutex->depth++;
		qk_port_unlock(lock);
		return osOK;
	}
	if (mutex->owner == self || timeout == 0) {
		qk_port_unlock(lock);
		return osErrorResource;
	}
	self->wait_mutex = mutex;
	/* Lend before blocking: the owner must outrank whoever is between the two. */
	if ((mutex->attributes & osMutexPrioInherit) && self->priority > mutex->owner->priority) {
		struct qk_thread *owner = mutex->owner;

		qk_set_priority(owner, self->priority);
		for (struct qk_mutex *next = owner->wait_mutex; next && next->owner; next = next->owner->wait_mutex) {
			if (!(next->attributes & osMutexPrioInherit) || next->owner->priority >= self->priority) {
				break;
			}
			qk_set_priority(next->owner, self->priority);
		}
	}
	return qk_block(&mutex->waiters, timeout, lock);
}

osStatus_t osMutexRelease(osMutexId_t mutex_id)
{
	struct qk_mutex *mutex = mutex_id;
	struct qk_thread *self;
	uint32_t lock;

	if (qk_port_in_isr()) {
		return osErrorISR;
	}
	if (!mutex) {
		return osErrorParameter;
	}
	lock = qk_port_lock();
	self = qk_current;
	if (mutex->owner != self) {
		qk_port_unlock(lock);
		return osErrorResource;
	}
	if (--mutex->depth == 0) {
		pass_on(mutex);
		qk_inherit(self);
		qk_schedule();
	}
	qk_port_unlock(lock);
	return osOK;
}

osThreadId_t osMutexGetOwner(osMutexId_t mutex_id)
{
	return mutex_id && !qk_port_in_isr() ? ((struct qk_mutex *)mutex_id)->owner : NULL;
}

/* A thread ends: robust mutexes go to the next in line, the others stay locked, as CMSIS-RTOS2 has it. */
void qk_mutexes_drop(struct qk_thread *thread)
{
	struct qk_mutex *mutex = thread->held;

	while (mutex) {
		struct qk_mutex *next = mutex->held_next;

		if (mutex->attributes & osMutexRobust) {
			pass_on(mutex);
		}
		mutex = next;
	}
}
