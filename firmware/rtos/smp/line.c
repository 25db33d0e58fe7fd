/* SPDX-License-Identifier: Apache-2.0 */
#include "qk_line.h"

#include <string.h>

#include "qk_crc.h"

#define CHARS_PER_LINE 124u

enum { IDLE, MARK_FIRST, MARK_NEXT, BODY, BETWEEN };

void qk_line_reader_init(struct qk_line_reader *reader, uint8_t *buffer, size_t capacity)
{
	memset(reader, 0, sizeof *reader);
	reader->buffer = buffer;
	reader->capacity = capacity;
}

static int base64_value(uint8_t c)
{
	if (c >= 'A' && c <= 'Z') {
		return c - 'A';
	}
	if (c >= 'a' && c <= 'z') {
		return c - 'a' + 26;
	}
	if (c >= '0' && c <= '9') {
		return c - '0' + 52;
	}
	return c == '+' ? 62 : c == '/' ? 63 : -1;
}

static void begin(struct qk_line_reader *reader)
{
	reader->used = 0;
	reader->expected = 0;
	reader->quantum_chars = 0;
	reader->padding = 0;
}

/* One decoded byte: the first two are the length of what follows. False: too long, or more than announced. */
static bool accept(struct qk_line_reader *reader, uint8_t byte)
{
	if (reader->used == 0) {
		reader->length_high = byte;
	} else if (reader->used == 1) {
		reader->expected = (size_t)reader->length_high << 8 | byte;
		if (reader->expected < 2u || reader->expected > reader->capacity) {
			return false;
		}
	} else if (reader->used - 2u < reader->expected) {
		reader->buffer[reader->used - 2u] = byte;
	} else {
		return false;
	}
	reader->used++;
	return true;
}

static bool body_char(struct qk_line_reader *reader, uint8_t c)
{
	int value = base64_value(c);

	if (c == '=') {
		reader->padding++;
		value = 0;
	} else if (value < 0 || reader->padding) {
		return false;
	}
	reader->quantum = reader->quantum << 6 | (uint32_t)value;
	if (++reader->quantum_chars < 4u) {
		return true;
	}
	reader->quantum_chars = 0;
	for (unsigned i = 0; i < 3u - (reader->padding > 2u ? 3u : reader->padding); i++) {
		if (!accept(reader, (uint8_t)(reader->quantum >> (16 - 8 * i)))) {
			return false;
		}
	}
	return reader->padding <= 2u;
}

bool qk_line_feed(struct qk_line_reader *reader, uint8_t byte)
{
	/* Base64 never contains these: a new first line always starts over, whatever was lost before it. */
	if (byte == 0x06) {
		reader->state = MARK_FIRST;
		return false;
	}
	if (byte == 0x04 && reader->state == BETWEEN) {
		reader->state = MARK_NEXT;
		return false;
	}
	switch (reader->state) {
	case MARK_FIRST:
		begin(reader);
		reader->state = byte == 0x09 ? BODY : IDLE;
		return false;
	case MARK_NEXT:
		reader->state = byte == 0x14 ? BODY : IDLE;
		return false;
	case BODY:
		if (byte == '\r') {
			return false;
		}
		if (byte != '\n') {
			if (!body_char(reader, byte)) {
				reader->state = IDLE;
			}
			return false;
		}
		if (reader->quantum_chars) {
			reader->state = IDLE;
			return false;
		}
		if (reader->used < 2u || reader->used - 2u < reader->expected) {
			reader->state = BETWEEN;
			return false;
		}
		reader->state = IDLE;
		reader->message_size = reader->expected - 2u;
		return qk_crc16(0, reader->buffer, reader->expected) == 0;
	default:
		return false; /* noise between lines: console text, telemetry of the other direction */
	}
}

size_t qk_line_wire_bytes(size_t size)
{
	size_t chars = (size + QK_LINE_FRAME_EXTRA + 2u) / 3u * 4u;

	return chars + 3u * ((chars + CHARS_PER_LINE - 1u) / CHARS_PER_LINE);
}

size_t qk_line_build(uint8_t *out, size_t capacity, const uint8_t *message, size_t size)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	uint16_t crc = qk_crc16(0, message, size), length = (uint16_t)(size + 2u);
	size_t total = size + QK_LINE_FRAME_EXTRA, written = 0, on_line = 0;

	if (qk_line_wire_bytes(size) > capacity) {
		return 0;
	}
	for (size_t at = 0; at < total; at += 3) {
		uint32_t quantum = 0;
		size_t left = total - at;

		for (unsigned i = 0; i < 3; i++) {
			size_t k = at + i;
			uint8_t byte = 0;

			if (k < 2u) {
				byte = (uint8_t)(length >> (8 * (1 - k)));
			} else if (k < 2u + size) {
				byte = message[k - 2u];
			} else if (k < total) {
				byte = (uint8_t)(crc >> (8 * (1 - (k - 2u - size))));
			}
			quantum = quantum << 8 | byte;
		}
		if (on_line == 0) {
			out[written++] = at ? 0x04 : 0x06;
			out[written++] = at ? 0x14 : 0x09;
		}
		out[written++] = (uint8_t)digits[quantum >> 18];
		out[written++] = (uint8_t)digits[(quantum >> 12) & 63u];
		out[written++] = left > 1 ? (uint8_t)digits[(quantum >> 6) & 63u] : '=';
		out[written++] = left > 2 ? (uint8_t)digits[quantum & 63u] : '=';
		on_line += 4;
		if (on_line == CHARS_PER_LINE || at + 3 >= total) {
			out[written++] = '\n';
			on_line = 0;
		}
	}
	return written;
}
