/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "qk_kernel.h"

osEventFlagsId_t osEventFlagsNew(const osEventFlagsAttr_t *attr)
{
	struct qk_event_flags *events;

	if (qk_port_in_isr() || !attr || !attr->cb_mem || attr->cb_size < sizeof *events) {
		return NULL;
	}
	events = attr->cb_mem;
	memset(events, 0, sizeof *events);
	return events;
}

/* True when `set` satisfies the wait; then `*taken` are the bits to clear. */
static bool satisfied(uint32_t set, uint32_t flags, uint32_t options, uint32_t *taken)
{
	uint32_t hit = set & flags;

	if (!hit || ((options & osFlagsWaitAll) && hit != flags)) {
		return false;
	}
	*taken = options & osFlagsNoClear ? 0 : hit;
	return true;
}

uint32_t osEventFlagsSet(osEventFlagsId_t ef_id, uint32_t flags)
{
	struct qk_event_flags *events = ef_id;
	struct qk_thread *thread, *next;
	uint32_t lock, left;

	if (!events || (flags & osFlagsError)) {
		return osFlagsErrorParameter;
	}
	lock = qk_port_lock();
	events->flags |= flags;
	for (thread = events->waiters.first; thread; thread = next) {
		uint32_t taken;

		next = thread->next;
		if (satisfied(events->flags, thread->wait_flags, thread->wait_options, &taken)) {
			thread->flags_result = events->flags;
			events->flags &= ~taken;
			qk_wake(thread, osOK);
		}
	}
	left = events->flags;
	qk_port_unlock(lock);
	return left;
}

uint32_t osEventFlagsClear(osEventFlagsId_t ef_id, uint32_t flags)
{
	struct qk_event_flags *events = ef_id;
	uint32_t lock, before;

	if (!events || (flags & osFlagsError)) {
		return osFlagsErrorParameter;
	}
	lock = qk_port_lock();
	before = events->flags;
	events->flags &= ~flags;
	qk_port_unlock(lock);
	return before;
}

uint32_t osEventFlagsGet(osEventFlagsId_t ef_id)
{
	return ef_id ? ((struct qk_event_flags *)ef_id)->flags : 0;
}

uint32_t osEventFlagsWait(osEventFlagsId_t ef_id, uint32_t flags, uint32_t options, uint32_t timeout)
{
	struct qk_event_flags *events = ef_id;
	struct qk_thread *self;
	uint32_t lock, taken;

	if (!events || !flags || (flags & osFlagsError) || (timeout && qk_port_in_isr())) {
		return osFlagsErrorParameter;
	}
	lock = qk_port_lock();
	if (satisfied(events->flags, flags, options, &taken)) {
		uint32_t before = events->flags;

		events->flags &= ~taken;
		qk_port_unlock(lock);
		return before;
	}
	if (timeout == 0) {
		qk_port_unlock(lock);
		return osFlagsErrorResource;
	}
	self = qk_current;
	self->wait_flags = flags;
	self->wait_options = options;
	return qk_block(&events->waiters, timeout, lock) == osOK ? self->flags_result : osFlagsErrorTimeout;
}
