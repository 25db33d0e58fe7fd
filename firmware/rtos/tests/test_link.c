/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "qk_app.h"
#include "qk_check.h"
#include "qk_frame.h"
#include "qk_host_kernel.h"
#include "qk_port.h"

/* The serial line's ring and the telemetry stream, on the host kernel, with a UART that can be blocked. */

static uint8_t out[1u << 20];
static size_t out_size;
static bool blocked;

size_t qk_uart_send(unsigned uart, const uint8_t *data, size_t size)
{
	CHECK(uart == QK_UART_LINK);
	if (blocked || !size) {
		return 0;
	}
	CHECK(out_size < sizeof out);
	out[out_size++] = data[0]; /* one byte at a time: the slowest UART that still moves */
	return 1;
}

uint64_t qk_port_time_us(void)
{
	return osKernelGetTickCount() * 1000u;
}

static struct qk_thread block;
static uint64_t stack[64];

static void start(osThreadFunc_t function)
{
	osThreadAttr_t attributes = {.name = "test",
	                             .cb_mem = &block,
	                             .cb_size = sizeof block,
	                             .stack_mem = stack,
	                             .stack_size = sizeof stack,
	                             .priority = osPriorityNormal};

	out_size = 0;
	blocked = false;
	qk_host_end_tick = 100000;
	CHECK(osKernelInitialize() == osOK);
	qk_link_start();
	qk_stream_start(0x1234567a);
	CHECK(osThreadNew(function, NULL, &attributes));
	CHECK(osKernelStart() == osOK);
}

/* Every run between delimiters is a whole frame; returns their number, and the gaps in their sequence. */
static unsigned frames(unsigned *missing)
{
	unsigned count = 0;
	uint16_t last = 0;
	size_t at = 0;

	*missing = 0;
	while (at < out_size) {
		size_t end = at;
		uint16_t seq;

		while (end < out_size && out[end]) {
			end++;
		}
		if (end > at) {
			CHECK(qk_frame_parse(out + at, end - at) == 8);
			CHECK(out[at + 1] == (0xa0 | QK_CHIP_RTOS));
			memcpy(&seq, out + at + 2, sizeof seq);
			*missing += count ? (uint16_t)(seq - last - 1u) : 0u;
			last = seq;
			count++;
		}
		at = end + 1;
	}
	return count;
}

static unsigned sent, dropped;

static void sends_into_a_blocked_line(void *argument)
{
	(void)argument;
	sent = dropped = 0;
	for (unsigned i = 0; i < 1000; i++) {
		uint16_t seq;

		blocked = i >= 100 && i < 700;
		switch (qk_stream_send(0x30, "payload", 8, &seq)) {
		case QK_STREAM_SENT:
			sent++;
			break;
		case QK_STREAM_DROPPED:
			dropped++;
			break;
		default:
			CHECK(false);
		}
		CHECK(osDelay(2) == osOK);
	}
	blocked = false;
}

static void a_blocked_line_costs_whole_frames_which_are_counted(void)
{
	uint32_t before = qk_stream_dropped_count();
	unsigned missing, count;

	start(sends_into_a_blocked_line);
	count = frames(&missing);
	CHECK(dropped > 50);
	CHECK(count == sent && missing == dropped);
	CHECK(qk_stream_dropped_count() - before == dropped);
}

static void yields_to_a_command(void *argument)
{
	uint16_t seq = 0, first;

	(void)argument;
	CHECK(qk_stream_send(0x30, "payload", 8, &first) == QK_STREAM_SENT);
	qk_stream_yield();
	CHECK(qk_stream_yielding());
	CHECK(qk_stream_send(0x30, "payload", 8, &seq) == QK_STREAM_YIELDED);
	CHECK(osDelay(249) == osOK);
	CHECK(qk_stream_send(0x30, "payload", 8, &seq) == QK_STREAM_YIELDED);
	CHECK(osDelay(1) == osOK);
	CHECK(qk_stream_send(0x30, "payload", 8, &seq) == QK_STREAM_SENT);
	CHECK(seq == (uint16_t)(first + 1u)); /* what was not sent has not used a number */
}

static void a_command_holds_telemetry_back_without_making_a_gap(void)
{
	uint32_t before = qk_stream_yielded_count();

	start(yields_to_a_command);
	CHECK(qk_stream_yielded_count() - before == 2);
}

static void puts_more_than_fits(void *argument)
{
	static uint8_t large[64 * 1024];
	uint32_t began = osKernelGetTickCount();

	(void)argument;
	CHECK(!qk_link_put(large, sizeof large, 0));
	CHECK(osKernelGetTickCount() == began);
	CHECK(!qk_link_put(large, sizeof large, 50));
	CHECK(osKernelGetTickCount() - began >= 50);
}

static void what_never_fits_is_refused_in_bounded_time(void)
{
	start(puts_more_than_fits);
	CHECK(out_size == 0);
}

int main(void)
{
	RUN(a_blocked_line_costs_whole_frames_which_are_counted);
	RUN(a_command_holds_telemetry_back_without_making_a_gap);
	RUN(what_never_fits_is_refused_in_bounded_time);
	return 0;
}
