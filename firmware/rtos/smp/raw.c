/* SPDX-License-Identifier: Apache-2.0 */
#include "qk_raw.h"

#include <string.h>

#define HEADER_BYTES 8u

void qk_raw_reader_init(struct qk_raw_reader *reader, uint8_t *buffer, size_t capacity)
{
	memset(reader, 0, sizeof *reader);
	reader->buffer = buffer;
	reader->capacity = capacity;
}

/* Can these first bytes begin a request? Version bits above an operation of 0 to 3, no flags, a length that fits. */
static bool plausible(const struct qk_raw_reader *reader)
{
	const uint8_t *head = reader->buffer;

	if ((head[0] & 0xe0u) || (head[0] & 7u) > 3u || (reader->used > 1u && head[1])) {
		return false;
	}
	return reader->used < 4u || ((size_t)head[2] << 8 | head[3]) <= reader->capacity - HEADER_BYTES;
}

bool qk_raw_feed(struct qk_raw_reader *reader, uint8_t byte, uint64_t now_us)
{
	if (now_us - reader->last_us > QK_RAW_SILENCE_US) {
		reader->used = 0;
		reader->lost = false;
	}
	reader->last_us = now_us;
	if (reader->lost) {
		return false;
	}
	reader->buffer[reader->used++] = byte;
	if (!plausible(reader)) {
		reader->used = 0;
		reader->lost = true;
		return false;
	}
	if (reader->used < HEADER_BYTES ||
	    reader->used < HEADER_BYTES + ((size_t)reader->buffer[2] << 8 | reader->buffer[3])) {
		return false;
	}
	reader->message_size = reader->used;
	reader->used = 0;
	return true;
}
