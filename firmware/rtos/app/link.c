/* SPDX-License-Identifier: Apache-2.0 */
#include "qk_app.h"

#include <string.h>

#include "qk_port.h"

/* A ring of bytes that is filled by whole frames and emptied by a thread of the lowest priority. When the host does not
 * read, the UART stays full: then this thread waits, and nobody else does. */

#define RING_BYTES 8192u
#define EVENT_DATA 1u

static uint8_t ring[RING_BYTES];
static uint32_t head, used;
static struct qk_mutex mutex;
static struct qk_event_flags events;
static struct qk_thread thread;
static uint64_t stack[1024 / 8];

bool qk_link_put(const uint8_t *data, size_t size, uint32_t timeout_ms)
{
	uint32_t waited = 0;

	for (;;) {
		(void)osMutexAcquire(&mutex, osWaitForever);
		if (size <= RING_BYTES - used) {
			size_t at = (head + used) % RING_BYTES, first = RING_BYTES - at;

			if (first > size) {
				first = size;
			}
			memcpy(ring + at, data, first);
			memcpy(ring, data + first, size - first);
			used += (uint32_t)size;
			(void)osMutexRelease(&mutex);
			(void)osEventFlagsSet(&events, EVENT_DATA);
			return true;
		}
		(void)osMutexRelease(&mutex);
		if (waited >= timeout_ms) {
			return false;
		}
		(void)osDelay(5);
		waited += 5;
	}
}

static void transmit(void *argument)
{
	(void)argument;
	for (;;) {
		uint8_t chunk[64];
		size_t size = 0, sent = 0;

		(void)osMutexAcquire(&mutex, osWaitForever);
		while (size < sizeof chunk && used) {
			chunk[size++] = ring[head];
			head = (head + 1u) % RING_BYTES;
			used--;
		}
		(void)osMutexRelease(&mutex);
		if (!size) {
			(void)osEventFlagsWait(&events, EVENT_DATA, osFlagsWaitAny, osWaitForever);
			continue;
		}
		while (sent < size) {
			size_t now = qk_uart_send(QK_UART_LINK, chunk + sent, size - sent);

			sent += now;
			if (!now) {
				(void)osDelay(1);
			}
		}
	}
}

void qk_link_start(void)
{
	static const osMutexAttr_t mutex_attr = {
	    .attr_bits = osMutexPrioInherit, .cb_mem = &mutex, .cb_size = sizeof mutex};
	static const osEventFlagsAttr_t events_attr = {.cb_mem = &events, .cb_size = sizeof events};
	static const osThreadAttr_t attr = {.name = "link",
	                                    .cb_mem = &thread,
	                                    .cb_size = sizeof thread,
	                                    .stack_mem = stack,
	                                    .stack_size = sizeof stack,
	                                    .priority = osPriorityLow};

	(void)osMutexNew(&mutex_attr);
	(void)osEventFlagsNew(&events_attr);
	(void)osThreadNew(transmit, NULL, &attr);
}
