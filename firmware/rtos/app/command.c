/* SPDX-License-Identifier: Apache-2.0 */
#include "qk_app.h"

#include "qk_board.h"
#include "qk_line.h"
#include "qk_port.h"
#include "qk_retained.h"
#include "qk_smp.h"

/* SMP over the serial line. The interrupt only stores bytes and wakes this thread at line ends; the ring holds several
 * whole frames, so a client may send ahead. */

/* Two encoded frames of QK_SMP_FRAME_MAX fit, with some room. More would let clients send further ahead, which pays on
 * a real line; the emulator receives slower while it works (31 kB/s one at a time, 25 kB/s with three under way). */
#define RING_BYTES 8192u
#define BUFFER_COUNT 2u
#define EVENT_LINE 1u
#define RESET_DELAY_MS 100u
#define ANSWER_TIMEOUT_MS 1000u

static uint8_t ring[RING_BYTES];
static volatile uint32_t head, tail;
static struct qk_event_flags events;
static struct qk_thread thread;
static uint64_t stack[4096 / 8];
static uint8_t request[QK_SMP_FRAME_MAX], response[QK_SMP_MESSAGE_MAX], wire[3 * QK_SMP_FRAME_MAX / 2];
static struct qk_smp_server server;
static struct qk_line_reader line;
static struct qk_image_policy policy;

void qk_command_byte(uint8_t byte)
{
	uint32_t next = (head + 1u) % RING_BYTES;

	if (next == tail) {
		return; /* the frame will fail its CRC and be asked for again */
	}
	ring[head] = byte;
	head = next;
	if (byte == '\n') {
		(void)osEventFlagsSet(&events, EVENT_LINE);
	}
}

static size_t fault_record(const void **record)
{
	*record = &qk_retained()->fault;
	return qk_retained_fault_valid() ? sizeof qk_retained()->fault : 0;
}

static void answer(void)
{
	size_t size;

	policy.ar1_version = qk_identity_ar1_version(); /* it may have started since */
	size = qk_smp_handle(&server, request, line.message_size, response);

	if (size) {
		size = qk_line_build(wire, sizeof wire, response, size);
		qk_stream_yield();
		(void)qk_link_put(wire, size, ANSWER_TIMEOUT_MS);
	}
	if (server.reset_requested) {
		(void)osDelay(RESET_DELAY_MS); /* the answer leaves first */
		qk_retained()->reset_announced = 1;
		qk_port_reset();
	}
}

static void run(void *argument)
{
	(void)argument;
	for (;;) {
		(void)osEventFlagsWait(&events, EVENT_LINE, osFlagsWaitAny, osWaitForever);
		while (tail != head) {
			uint8_t byte = ring[tail];

			tail = (tail + 1u) % RING_BYTES;
			if (byte == 0x06) {
				qk_stream_yield();
			}
			if (qk_line_feed(&line, byte)) {
				answer();
			}
		}
	}
}

void qk_command_start(void)
{
	static const struct qk_smp_hooks hooks = {
	    .identity = qk_identity_put,
	    .health = qk_health_put,
	    .fault = fault_record,
	};
	static const osEventFlagsAttr_t events_attr = {.cb_mem = &events, .cb_size = sizeof events};
	static const osThreadAttr_t attr = {.name = "command",
	                                    .cb_mem = &thread,
	                                    .cb_size = sizeof thread,
	                                    .stack_mem = stack,
	                                    .stack_size = sizeof stack,
	                                    .priority = osPriorityAboveNormal};

	policy = (struct qk_image_policy){
	    .board = qk_board.name,
	    .public_key = qk_board.public_key,
	    .load_address = qk_board.load_address,
	    .load_bytes_max = qk_board.load_bytes_max,
	    .ar1_version = qk_identity_ar1_version(),
	};
	qk_smp_init(&server, &qk_board.layout, &policy, &hooks, qk_retained()->slot);
	server.buffer_count = BUFFER_COUNT;
	qk_line_reader_init(&line, request, sizeof request);
	(void)osEventFlagsNew(&events_attr);
	(void)osThreadNew(run, NULL, &attr);
}
