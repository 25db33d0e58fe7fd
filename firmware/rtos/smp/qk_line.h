/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QK_LINE_H
#define QK_LINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* SMP console framing: lines "06 09 <base64> 0a", continued by "04 14 <base64> 0a", around
 * length (big endian) + message + CRC-16. Source: MCUmgr SMP transport over console. */

#define QK_LINE_BYTES 127u /* with marker and newline */
#define QK_LINE_FRAME_EXTRA 4u

/* Puts lines together. Feed bytes; true when a whole message with a good CRC lies in buffer[0 .. message_size). */
struct qk_line_reader {
	uint8_t *buffer; /* decoded frame without its length field */
	size_t capacity;
	size_t message_size;
	/* private */
	size_t used, expected;
	uint32_t quantum;
	uint8_t quantum_chars, padding;
	uint8_t state;
	uint8_t length_high;
};

void qk_line_reader_init(struct qk_line_reader *reader, uint8_t *buffer, size_t capacity);
bool qk_line_feed(struct qk_line_reader *reader, uint8_t byte);

/* Wire bytes of a message as console lines. Returns the size written, 0 if it does not fit. */
size_t qk_line_build(uint8_t *out, size_t capacity, const uint8_t *message, size_t size);

/* Wire size of a message of `size` bytes. */
size_t qk_line_wire_bytes(size_t size);

#endif
