/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "qk_board.h"
#include "qk_fault.h"
#include "qk_flash.h"
#include "qk_line.h"
#include "qk_plant.h"
#include "qk_port.h"
#include "qk_raw.h"
#include "qk_retained.h"
#include "qk_smp.h"

/* Bootloader: decide, copy, jump. Where nothing can be started: serial recovery by SMP, for as long as it takes. */

#define WATCHDOG_MS 3000u

static uint8_t received_bytes[16384];
static volatile uint32_t received_head, received_tail;
static uint8_t request[QK_SMP_FRAME_MAX], raw_request[QK_SMP_MESSAGE_MAX], response[QK_SMP_MESSAGE_MAX],
    wire[3 * QK_SMP_FRAME_MAX / 2];

void qk_uart_received(unsigned uart, uint8_t byte)
{
	uint32_t next = (received_head + 1u) % sizeof received_bytes;

	if (uart == QK_UART_LINK && next != received_tail) {
		received_bytes[received_head] = byte;
		received_head = next;
	}
}

void qk_fault_describe(struct qk_wire_fault *fault)
{
	memcpy(fault->thread, "bootloader", 10);
}

static void send_all(unsigned uart, const uint8_t *data, size_t size)
{
	size_t sent = 0;

	while (sent < size) {
		sent += qk_uart_send(uart, data + sent, size - sent);
		qk_watchdog_kick(); /* a host that does not read must not reset a device in recovery */
	}
}

static void log_line(const char *text)
{
	/* The log has no reader that could be slow: a file. Never wait for it. */
	(void)qk_uart_send(QK_UART_LOG, (const uint8_t *)"boot: ", 6);
	(void)qk_uart_send(QK_UART_LOG, (const uint8_t *)text, strlen(text));
	(void)qk_uart_send(QK_UART_LOG, (const uint8_t *)"\n", 1);
}

/* Why this reset happened. The power chip knows best; then what the last run left; silence means the watchdog. */
static uint8_t reset_reason(bool retained_lost)
{
	struct qk_wire_plant_control control;
	struct qk_retained *retained = qk_retained();

	memcpy(&control, (const void *)qk_mailbox(), sizeof control);
	if (control.layout_hash == QK_PLANT_LAYOUT_HASH && control.reset_cause != UINT32_MAX) {
		uint8_t *cause = (uint8_t *)(uintptr_t)qk_mailbox() + offsetof(struct qk_wire_plant_control, reset_cause);

		memset(cause, 0xff, sizeof control.reset_cause);
		return (uint8_t)control.reset_cause;
	}
	if (retained_lost) {
		return QK_RESET_REASON_POWER_ON;
	}
	if (retained->fault_is_new && qk_retained_fault_valid()) {
		return retained->fault.kind == QK_FAULT_KIND_WATCHDOG ? QK_RESET_REASON_WATCHDOG : QK_RESET_REASON_FAULT;
	}
	return retained->reset_announced == 1 ? QK_RESET_REASON_SOFTWARE : QK_RESET_REASON_EXTERNAL;
}

static uint32_t ar1_version(void)
{
	struct qk_wire_plant_control control;

	memcpy(&control, (const void *)qk_mailbox(), sizeof control);
	return control.layout_hash == QK_PLANT_LAYOUT_HASH ? control.ar1_version : 0;
}

static uint8_t rollback_reason(uint8_t reset)
{
	switch (reset) {
	case QK_RESET_REASON_FAULT:
		return QK_ROLLBACK_REASON_FAULT;
	case QK_RESET_REASON_WATCHDOG:
		return QK_ROLLBACK_REASON_WATCHDOG;
	default:
		return QK_ROLLBACK_REASON_NOT_CONFIRMED;
	}
}

static void put_identity(struct qk_cbor_writer *writer)
{
	struct qk_wire_plant_control control;
	char serial[sizeof control.serial + 1] = {0};
	uint8_t key_hash[QK_IMAGE_HASH_BYTES];

	memcpy(&control, (const void *)qk_mailbox(), sizeof control);
	memcpy(serial, control.serial, sizeof control.serial);
	qk_cbor_pair_text(writer, "board", qk_board.name);
	qk_cbor_pair_text(writer, "serial", serial);
	qk_image_key_hash(qk_board.public_key, key_hash);
	qk_cbor_pair_bytes(writer, "key_hash", key_hash, sizeof key_hash);
	qk_cbor_pair_uint(writer, "ar1_version", ar1_version());
}

static void recover(const struct qk_image_policy *policy)
{
	static const struct qk_smp_hooks hooks = {.identity = put_identity};
	struct qk_smp_server server;
	struct qk_line_reader line;
	struct qk_raw_reader raw;

	log_line("nothing to start, waiting for serial recovery");
	qk_smp_init(&server, &qk_board.layout, policy, &hooks, QK_SLOT_NONE);
	qk_line_reader_init(&line, request, sizeof request);
	qk_raw_reader_init(&raw, raw_request, sizeof raw_request);
	qk_uart_open(QK_UART_LINK, true);
	for (;;) {
		qk_watchdog_kick();
		while (received_tail != received_head) {
			uint8_t byte = received_bytes[received_tail];

			received_tail = (received_tail + 1u) % sizeof received_bytes;
			/* The line is ours alone: both framings are taken, and each is answered in kind. */
			if (qk_line_feed(&line, byte)) {
				size_t size = qk_smp_handle(&server, request, line.message_size, response);

				send_all(QK_UART_LINK, wire, qk_line_build(wire, sizeof wire, response, size));
			}
			if (qk_raw_feed(&raw, byte, qk_port_time_us())) {
				send_all(QK_UART_LINK, response, qk_smp_handle(&server, raw_request, raw.message_size, response));
			}
			if (server.reset_requested) {
				qk_retained()->reset_announced = 1;
				qk_port_reset();
			}
		}
		/* Between the test above and this sleep a byte may come: its interrupt stays pending while masked, and a
		 * pending interrupt ends WFI at once. */
		__asm volatile("cpsid i" ::: "memory");
		if (received_tail == received_head) {
			qk_port_wait_for_interrupt();
		}
		__asm volatile("cpsie i\n isb" ::: "memory");
	}
}

int main(void)
{
	struct qk_retained *retained = qk_retained();
	struct qk_image_policy policy = {
	    .board = qk_board.name,
	    .public_key = qk_board.public_key,
	    .load_address = qk_board.load_address,
	    .load_bytes_max = qk_board.load_bytes_max,
	    .ar1_version = ar1_version(),
	};
	struct qk_boot_decision decision;
	bool lost = retained->magic != QK_RETAINED_MAGIC;
	uint8_t reason;

	qk_port_init();
	qk_uart_open(QK_UART_LOG, false);
	if (lost) {
		memset(retained, 0, sizeof *retained);
		retained->magic = QK_RETAINED_MAGIC;
	}
	reason = reset_reason(lost);
	retained->boot_count++;
	retained->reset_announced = 0;
	retained->fault_is_new = 0;
	qk_boot_decide(&qk_board.layout, &policy, rollback_reason(reason), &decision);
	qk_watchdog_start(WATCHDOG_MS);
	if (decision.slot == QK_SLOT_NONE) {
		recover(&policy);
	}
	log_line(decision.slot ? "starting slot B" : "starting slot A");
	retained->slot = decision.slot;
	retained->image_state = decision.image_state;
	retained->reset_reason = reason;
	retained->rollback_reason = decision.rollback_reason;
	retained->security_counter = decision.image.security_counter;
	memcpy((void *)(uintptr_t)qk_board.load_address, qk_flash_map(qk_board.layout.slot_offset[decision.slot]),
	       decision.image.copy_bytes);
	qk_port_jump(qk_board.load_address + decision.image.header_bytes);
}
