/* SPDX-License-Identifier: Apache-2.0 */
#include "qk_app.h"

#include <string.h>

#include "qk_frame.h"
#include "qk_port.h"

/* The AR1 on its UART: asked one thing at a time, 20 times a second while it answers, twice a second while it does not.
 * What was lost counts only while it is there: a chip that is off loses nothing. */

#define RING_BYTES 512u
#define EVENT_FRAME 1u
#define PERIOD_MS 50u
#define ANSWER_MS 500u
#define LOST_MAX 3u /* in a row: it is not there any more */
#define NO_SENSOR (-32768)

static uint8_t ring[RING_BYTES];
static volatile uint32_t head, tail;
static struct qk_event_flags events;
static struct qk_mutex mutex;
static struct qk_thread thread;
static uint64_t stack[2048 / 8];
static struct qk_peer peer; /* guarded by the mutex */
static uint8_t run[QK_FRAME_WIRE_MAX];
static size_t run_size;

void qk_peer_byte(uint8_t byte)
{
	uint32_t next = (head + 1u) % RING_BYTES;

	if (next != tail) {
		ring[head] = byte;
		head = next;
	}
	if (!byte) {
		(void)osEventFlagsSet(&events, EVENT_FRAME);
	}
}

bool qk_peer_get(struct qk_peer *out)
{
	(void)osMutexAcquire(&mutex, osWaitForever);
	*out = peer;
	(void)osMutexRelease(&mutex);
	return out->version != 0;
}

void qk_peer_latency_sent(uint32_t latency_us_max)
{
	(void)osMutexAcquire(&mutex, osWaitForever);
	if (peer.latency_us_max <= latency_us_max) {
		peer.latency_us_max = 0;
	}
	(void)osMutexRelease(&mutex);
}

static void ask(uint32_t nonce)
{
	struct qk_wire_link_request request = {.nonce = nonce};
	int16_t zones[4] = {NO_SENSOR, NO_SENSOR, NO_SENSOR, NO_SENSOR};
	uint8_t wire[QK_FRAME_WIRE_MAX];
	struct qk_sense sense;
	size_t size, sent = 0;

	qk_sense_get(&sense);
	if (sense.sample_count) {
		zones[QK_AR1_ZONE_CPU] = zones[QK_AR1_ZONE_NPU] = sense.zone_decic[QK_THERMAL_ZONE_AR1];
		zones[QK_AR1_ZONE_SKIN] = sense.zone_decic[QK_THERMAL_ZONE_SKIN];
	}
	memcpy(request.zone_decic, zones, sizeof request.zone_decic);
	size = qk_frame_build(wire, QK_WIRE_LINK_REQUEST_TYPE, qk_frame_source(QK_CHIP_RTOS, qk_identity_boot_id()),
	                      (uint16_t)nonce, qk_port_time_us(), &request, sizeof request);
	while (sent < size) {
		size_t now = qk_uart_send(QK_UART_AR1, wire + sent, size - sent);

		sent += now;
		if (!now) {
			(void)osDelay(1);
		}
	}
}

/* Takes what came; true when the answer to this request was among it. */
static bool answered(uint32_t nonce, struct qk_wire_link_answer *answer)
{
	bool found = false;

	while (tail != head) {
		uint8_t byte = ring[tail];

		tail = (tail + 1u) % RING_BYTES;
		if (byte) {
			if (run_size < sizeof run) {
				run[run_size] = byte;
			}
			run_size++; /* a run that is too long is noise up to its end */
			continue;
		}
		if (run_size && run_size <= sizeof run && qk_frame_parse(run, run_size) == (int)sizeof *answer &&
		    run[0] == QK_WIRE_LINK_ANSWER_TYPE) {
			memcpy(answer, run + sizeof(struct qk_wire_frame_header), sizeof *answer);
			found = found || answer->nonce == nonce;
		}
		run_size = 0;
	}
	return found;
}

static void work(void *argument)
{
	uint32_t nonce = 0, lost_in_row = LOST_MAX, due = osKernelGetTickCount();

	(void)argument;
	for (;;) {
		struct qk_wire_link_answer answer;
		uint64_t began = qk_port_time_us();
		uint32_t until = osKernelGetTickCount() + ANSWER_MS;
		bool there = lost_in_row < LOST_MAX, got = false;
		int32_t left;

		ask(++nonce);
		while (!got && (left = (int32_t)(until - osKernelGetTickCount())) > 0) {
			(void)osEventFlagsWait(&events, EVENT_FRAME, osFlagsWaitAny, (uint32_t)left);
			got = answered(nonce, &answer);
		}
		lost_in_row = got ? 0 : lost_in_row + (there ? 1u : 0u);
		(void)osMutexAcquire(&mutex, osWaitForever);
		if (got || there) {
			peer.sent_count++;
			peer.lost_count += !got;
		}
		if (got) {
			uint32_t latency = (uint32_t)(qk_port_time_us() - began);

			peer.version = answer.version;
			if (latency > peer.latency_us_max) {
				peer.latency_us_max = latency;
			}
		}
		(void)osMutexRelease(&mutex);
		due += PERIOD_MS;
		left = (int32_t)(due - osKernelGetTickCount());
		if (left > 0) {
			(void)osDelay((uint32_t)left);
		} else {
			due = osKernelGetTickCount();
		}
	}
}

void qk_peer_start(void)
{
	static const osMutexAttr_t mutex_attr = {
	    .attr_bits = osMutexPrioInherit, .cb_mem = &mutex, .cb_size = sizeof mutex};
	static const osEventFlagsAttr_t events_attr = {.cb_mem = &events, .cb_size = sizeof events};
	static const osThreadAttr_t attr = {.name = "peer",
	                                    .cb_mem = &thread,
	                                    .cb_size = sizeof thread,
	                                    .stack_mem = stack,
	                                    .stack_size = sizeof stack,
	                                    .priority = osPriorityBelowNormal};

	(void)osMutexNew(&mutex_attr);
	(void)osEventFlagsNew(&events_attr);
	(void)osThreadNew(work, NULL, &attr);
}
