/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QK_RAW_H
#define QK_RAW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* SMP on a raw UART: bare messages, header of 8 bytes with the length of the rest. Nothing marks a start and nothing is
 * checked: what cannot be a message is passed over until the line was silent. Source: MCUboot BOOT_SERIAL_RAW_PROTOCOL,
 * Zephyr UART_MCUMGR_RAW_PROTOCOL. */

#define QK_RAW_SILENCE_US 3000000u

/* Feed bytes with the time they came; true when a whole message lies in buffer[0 .. message_size). */
struct qk_raw_reader {
	uint8_t *buffer;
	size_t capacity;
	size_t message_size;
	/* private */
	size_t used;
	uint64_t last_us;
	bool lost;
};

void qk_raw_reader_init(struct qk_raw_reader *reader, uint8_t *buffer, size_t capacity);
bool qk_raw_feed(struct qk_raw_reader *reader, uint8_t byte, uint64_t now_us);

#endif
