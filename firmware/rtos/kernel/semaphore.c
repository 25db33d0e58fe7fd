/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "qk_kernel.h"

osSemaphoreId_t osSemaphoreNew(uint32_t max_count, uint32_t initial_count, const osSemaphoreAttr_t *attr)
{
	struct qk_semaphore *semaphore;

	if (qk_port_in_isr() || !max_count || initial_count > max_count || !attr || !attr->cb_mem ||
	    attr->cb_size < sizeof *semaphore) {
		return NULL;
	}
	semaphore = attr->cb_mem;
	memset(semaphore, 0, sizeof *semaphore);
	semaphore->count = initial_count;
	semaphore->max = max_count;
	return semaphore;
}

osStatus_t osSemaphoreAcquire(osSemaphoreId_t semaphore_id, uint32_t timeout)
{
	struct qk_semaphore *semaphore = semaphore_id;
	uint32_t lock;

	if (!semaphore || (timeout && qk_port_in_isr())) {
		return osErrorParameter;
	}
	lock = qk_port_lock();
	if (semaphore->count) {
		semaphore->count--;
		qk_port_unlock(lock);
		return osOK;
	}
	if (timeout == 0) {
		qk_port_unlock(lock);
		return osErrorResource;
	}
	return qk_block(&semaphore->waiters, timeout, lock);
}

osStatus_t osSemaphoreRelease(osSemaphoreId_t semaphore_id)
{
	struct qk_semaphore *semaphore = semaphore_id;
	osStatus_t status = osOK;
	uint32_t lock;

	if (!semaphore) {
		return osErrorParameter;
	}
	lock = qk_port_lock();
	if (semaphore->waiters.first) {
		qk_wake(semaphore->waiters.first, osOK);
	} else if (semaphore->count < semaphore->max) {
		semaphore->count++;
	} else {
		status = osErrorResource;
	}
	qk_port_unlock(lock);
	return status;
}

uint32_t osSemaphoreGetCount(osSemaphoreId_t semaphore_id)
{
	return semaphore_id ? ((struct qk_semaphore *)semaphore_id)->count : 0;
}
