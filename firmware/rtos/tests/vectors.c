/* SPDX-License-Identifier: Apache-2.0 */
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "qk_frame.h"
#include "qk_plant.h"
#include "qk_telemetry.h"

/* Every recorded vector of protocols/vectors/, in both directions: fields and frames to bytes, and bytes back. The same
 * program runs on the host, with sanitizers, and on the microcontroller in the emulator. */

struct frame_vector {
	uint8_t type, source;
	uint16_t seq;
	uint64_t time_us;
	const uint8_t *payload;
	size_t payload_size;
	const uint8_t *wire;
	size_t wire_size;
};

/* Made from the vectors by the test: `frames`, `FRAME_COUNT` and `fields_agree`, which returns NULL or what differs. */
#include "qk_vectors.h"

static bool frame_agrees(const struct frame_vector *v)
{
	uint8_t out[QK_FRAME_WIRE_MAX], run[QK_FRAME_WIRE_MAX];
	struct qk_wire_frame_header header;
	size_t size = qk_frame_build(out, v->type, v->source, v->seq, v->time_us, v->payload, v->payload_size);

	if (size != v->wire_size || memcmp(out, v->wire, size) != 0) {
		return false;
	}
	memcpy(run, v->wire + 1, v->wire_size - 2u);
	if (qk_frame_parse(run, v->wire_size - 2u) != (int)v->payload_size) {
		return false;
	}
	memcpy(&header, run, sizeof header);
	if (header.type != v->type || header.source != v->source || header.seq != v->seq || header.time_us != v->time_us) {
		return false;
	}
	if (memcmp(run + sizeof header, v->payload, v->payload_size) != 0) {
		return false;
	}
	memcpy(run, v->wire + 1, v->wire_size - 2u); /* and one wrong bit is no frame */
	run[v->wire_size / 2u] ^= 0x10u;
	return qk_frame_parse(run, v->wire_size - 2u) < 0;
}

static const char *check(void)
{
	for (size_t i = 0; i < FRAME_COUNT; i++) {
		if (!frame_agrees(&frames[i])) {
			return "a frame";
		}
	}
	return fields_agree();
}

#ifdef __arm__
#include "qk_fault.h"
#include "qk_port.h"

static void say(const char *text)
{
	(void)qk_uart_send(QK_UART_LOG, (const uint8_t *)text, strlen(text));
}

void qk_uart_received(unsigned uart, uint8_t byte)
{
	(void)uart;
	(void)byte;
}

void qk_fault_describe(struct qk_wire_fault *fault)
{
	(void)fault;
	say("\nFAIL fault\n");
}

int main(void)
{
	const char *wrong;

	qk_port_init();
	qk_uart_open(QK_UART_LOG, false);
	wrong = check();
	say(wrong ? "FAIL " : "DONE");
	say(wrong ? wrong : "");
	say("\n");
	for (;;) {
		qk_port_wait_for_interrupt();
	}
}
#else
#include <stdio.h>

int main(void)
{
	const char *wrong = check();

	puts(wrong ? wrong : "DONE");
	return wrong != NULL;
}
#endif
