/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "qk_kernel.h"

osMessageQueueId_t osMessageQueueNew(uint32_t msg_count, uint32_t msg_size, const osMessageQueueAttr_t *attr)
{
	struct qk_message_queue *queue;

	if (qk_port_in_isr() || !msg_count || !msg_size || !attr || !attr->cb_mem || attr->cb_size < sizeof *queue ||
	    !attr->mq_mem || attr->mq_size / msg_size < msg_count) {
		return NULL;
	}
	queue = attr->cb_mem;
	memset(queue, 0, sizeof *queue);
	queue->memory = attr->mq_mem;
	queue->message_bytes = msg_size;
	queue->capacity = msg_count;
	return queue;
}

static void push(struct qk_message_queue *queue, const void *message)
{
	uint32_t at = (queue->head + queue->count) % queue->capacity;

	memcpy(queue->memory + at * queue->message_bytes, message, queue->message_bytes);
	queue->count++;
}

static void pop(struct qk_message_queue *queue, void *message)
{
	memcpy(message, queue->memory + queue->head * queue->message_bytes, queue->message_bytes);
	queue->head = (queue->head + 1u) % queue->capacity;
	queue->count--;
}

osStatus_t osMessageQueuePut(osMessageQueueId_t mq_id, const void *msg_ptr, uint8_t msg_prio, uint32_t timeout)
{
	struct qk_message_queue *queue = mq_id;
	uint32_t lock;

	if (!queue || !msg_ptr || msg_prio || (timeout && qk_port_in_isr())) {
		return osErrorParameter;
	}
	lock = qk_port_lock();
	if (queue->getters.first) { /* somebody waits, so the queue is empty: hand it over */
		memcpy(queue->getters.first->wait_buffer, msg_ptr, queue->message_bytes);
		qk_wake(queue->getters.first, osOK);
	} else if (queue->count < queue->capacity) {
		push(queue, msg_ptr);
	} else if (timeout == 0) {
		qk_port_unlock(lock);
		return osErrorResource;
	} else {
		qk_current->wait_buffer = (void *)(uintptr_t)msg_ptr;
		return qk_block(&queue->putters, timeout, lock);
	}
	qk_port_unlock(lock);
	return osOK;
}

osStatus_t osMessageQueueGet(osMessageQueueId_t mq_id, void *msg_ptr, uint8_t *msg_prio, uint32_t timeout)
{
	struct qk_message_queue *queue = mq_id;
	uint32_t lock;

	if (!queue || !msg_ptr || (timeout && qk_port_in_isr())) {
		return osErrorParameter;
	}
	if (msg_prio) {
		*msg_prio = 0;
	}
	lock = qk_port_lock();
	if (queue->count) {
		pop(queue, msg_ptr);
		if (queue->putters.first) { /* the place just freed goes to the thread that waited for it */
			push(queue, queue->putters.first->wait_buffer);
			qk_wake(queue->putters.first, osOK);
		}
	} else if (timeout == 0) {
		qk_port_unlock(lock);
		return osErrorResource;
	} else {
		qk_current->wait_buffer = msg_ptr;
		return qk_block(&queue->getters, timeout, lock);
	}
	qk_port_unlock(lock);
	return osOK;
}

uint32_t osMessageQueueGetCapacity(osMessageQueueId_t mq_id)
{
	return mq_id ? ((struct qk_message_queue *)mq_id)->capacity : 0;
}

uint32_t osMessageQueueGetCount(osMessageQueueId_t mq_id)
{
	return mq_id ? ((struct qk_message_queue *)mq_id)->count : 0;
}
