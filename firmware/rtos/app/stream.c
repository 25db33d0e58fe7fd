/* SPDX-License-Identifier: Apache-2.0 */
#include "qk_app.h"

#include "qk_frame.h"
#include "qk_port.h"

#define YIELD_MS 250u

static struct qk_mutex mutex;
static uint8_t source;
static uint16_t next_seq;
static uint32_t dropped_count, yielded_count;
static volatile uint32_t yield_until;
static volatile bool yield_set;

void qk_stream_start(uint32_t boot_id)
{
	static const osMutexAttr_t attr = {.attr_bits = osMutexPrioInherit, .cb_mem = &mutex, .cb_size = sizeof mutex};

	source = qk_frame_source(QK_CHIP_RTOS, boot_id);
	(void)osMutexNew(&attr);
}

void qk_stream_yield(void)
{
	yield_until = osKernelGetTickCount() + YIELD_MS;
	yield_set = true;
}

bool qk_stream_yielding(void)
{
	return yield_set && (int32_t)(osKernelGetTickCount() - yield_until) < 0;
}

enum qk_stream_result qk_stream_send(uint8_t type, const void *payload, size_t size, uint16_t *seq)
{
	static uint8_t wire[QK_FRAME_WIRE_MAX]; /* guarded by the mutex */
	enum qk_stream_result result = QK_STREAM_SENT;

	(void)osMutexAcquire(&mutex, osWaitForever);
	if (qk_stream_yielding()) {
		yielded_count++;
		(void)osMutexRelease(&mutex);
		return QK_STREAM_YIELDED;
	}
	*seq = next_seq++;
	size = qk_frame_build(wire, type, source, *seq, qk_port_time_us(), payload, size);
	if (!qk_link_put(wire, size, 0)) {
		dropped_count++;
		result = QK_STREAM_DROPPED;
	}
	(void)osMutexRelease(&mutex);
	return result;
}

uint32_t qk_stream_dropped_count(void)
{
	return dropped_count;
}

uint32_t qk_stream_yielded_count(void)
{
	return yielded_count;
}
