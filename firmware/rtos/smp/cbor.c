/* SPDX-License-Identifier: Apache-2.0 */
#include "qk_cbor.h"

#include <string.h>

enum { MAJOR_UINT, MAJOR_NEGATIVE, MAJOR_BYTES, MAJOR_TEXT, MAJOR_ARRAY, MAJOR_MAP, MAJOR_TAG, MAJOR_SIMPLE };

#define INDEFINITE 31u
#define BREAK 0xffu

/* Head of an item: major type and argument. False: cut off or reserved. */
static bool head(struct qk_cbor_reader *reader, uint8_t *major, uint8_t *info, uint64_t *argument)
{
	unsigned bytes;

	if (reader->at == reader->end) {
		return false;
	}
	*major = *reader->at >> 5;
	*info = *reader->at & 31u;
	reader->at++;
	*argument = *info;
	if (*info < 24u || *info == INDEFINITE) {
		return true;
	}
	if (*info > 27u) {
		return false;
	}
	bytes = 1u << (*info - 24u);
	if ((size_t)(reader->end - reader->at) < bytes) {
		return false;
	}
	*argument = 0;
	for (unsigned i = 0; i < bytes; i++) {
		*argument = *argument << 8 | *reader->at++;
	}
	return true;
}

static bool take(struct qk_cbor_reader *reader, uint64_t size, struct qk_cbor_text *text)
{
	if (size > (uint64_t)(reader->end - reader->at)) {
		return false;
	}
	*text = (struct qk_cbor_text){.data = reader->at, .size = (size_t)size};
	reader->at += size;
	return true;
}

/* Skips one item. An explicit stack of counts instead of recursion keeps the C stack bounded. */
static bool skip(struct qk_cbor_reader *reader)
{
	uint64_t left[QK_CBOR_DEPTH_MAX];
	unsigned depth = 0;

	do {
		uint8_t major, info;
		uint64_t argument;
		struct qk_cbor_text text;

		if (depth && left[depth - 1u] == UINT64_MAX && reader->at < reader->end && *reader->at == BREAK) {
			reader->at++;
			depth--;
			continue;
		}
		if (depth && left[depth - 1u] == 0) {
			depth--;
			continue;
		}
		if (!head(reader, &major, &info, &argument)) {
			return false;
		}
		if (depth && left[depth - 1u] != UINT64_MAX) {
			left[depth - 1u]--;
		}
		switch (major) {
		case MAJOR_UINT:
		case MAJOR_NEGATIVE:
		case MAJOR_SIMPLE:
			if (info == INDEFINITE) {
				return false;
			}
			break;
		case MAJOR_BYTES:
		case MAJOR_TEXT:
			if (info == INDEFINITE || !take(reader, argument, &text)) {
				return false;
			}
			break;
		case MAJOR_ARRAY:
		case MAJOR_MAP:
			if (depth == QK_CBOR_DEPTH_MAX || (info != INDEFINITE && argument > UINT32_MAX)) {
				return false;
			}
			left[depth++] = info == INDEFINITE ? UINT64_MAX : argument * (major == MAJOR_MAP ? 2u : 1u);
			break;
		default:
			return false; /* tags do not occur in SMP */
		}
	} while (depth);
	return true;
}

bool qk_cbor_map_open(struct qk_cbor_map *map, struct qk_cbor_reader *reader)
{
	uint8_t major, info;
	uint64_t argument;

	if (!head(reader, &major, &info, &argument) || major != MAJOR_MAP) {
		return false;
	}
	map->reader = reader;
	map->left = info == INDEFINITE ? UINT64_MAX : argument;
	return true;
}

int qk_cbor_map_next(struct qk_cbor_map *map, struct qk_cbor_text *key, struct qk_cbor_value *value)
{
	struct qk_cbor_reader *reader = map->reader;
	struct qk_cbor_reader start;
	uint8_t major, info;
	uint64_t argument;

	if (map->left == 0) {
		return 0;
	}
	if (map->left == UINT64_MAX && reader->at < reader->end && *reader->at == BREAK) {
		reader->at++;
		map->left = 0;
		return 0;
	}
	if (!head(reader, &major, &info, &argument) || major != MAJOR_TEXT || info == INDEFINITE ||
	    !take(reader, argument, key)) {
		return -1;
	}
	start = *reader;
	if (!head(reader, &major, &info, &argument)) {
		return -1;
	}
	*value = (struct qk_cbor_value){.kind = QK_CBOR_OTHER, .number = argument};
	if (major == MAJOR_UINT && info != INDEFINITE) {
		value->kind = QK_CBOR_UINT;
	} else if ((major == MAJOR_BYTES || major == MAJOR_TEXT) && info != INDEFINITE) {
		value->kind = major == MAJOR_BYTES ? QK_CBOR_BYTES : QK_CBOR_TEXT;
		if (!take(reader, argument, &value->text)) {
			return -1;
		}
	} else if (major == MAJOR_SIMPLE && (argument == 20u || argument == 21u)) {
		value->kind = QK_CBOR_BOOL;
		value->number = argument - 20u;
	} else {
		*reader = start;
		if (!skip(reader)) {
			return -1;
		}
	}
	if (map->left != UINT64_MAX) {
		map->left--;
	}
	return 1;
}

bool qk_cbor_key_is(const struct qk_cbor_text *key, const char *name)
{
	return key->size == strlen(name) && memcmp(key->data, name, key->size) == 0;
}

static void put(struct qk_cbor_writer *writer, const void *data, size_t size)
{
	if (size > (size_t)(writer->end - writer->at)) {
		writer->full = true;
		return;
	}
	memcpy(writer->at, data, size);
	writer->at += size;
}

static void put_head(struct qk_cbor_writer *writer, uint8_t major, uint64_t argument)
{
	uint8_t bytes[9] = {(uint8_t)(major << 5)};
	unsigned size = argument < 24u           ? 0
	                : argument < 0x100u      ? 1
	                : argument < 0x10000u    ? 2
	                : argument <= UINT32_MAX ? 4
	                                         : 8;

	bytes[0] |= (uint8_t)(size == 0 ? argument : size == 1 ? 24u : size == 2 ? 25u : size == 4 ? 26u : 27u);
	for (unsigned i = 0; i < size; i++) {
		bytes[1 + i] = (uint8_t)(argument >> (8 * (size - 1 - i)));
	}
	put(writer, bytes, 1u + size);
}

void qk_cbor_put_uint(struct qk_cbor_writer *writer, uint64_t value)
{
	put_head(writer, MAJOR_UINT, value);
}

void qk_cbor_put_bytes(struct qk_cbor_writer *writer, const void *data, size_t size)
{
	put_head(writer, MAJOR_BYTES, size);
	put(writer, data, size);
}

void qk_cbor_put_text(struct qk_cbor_writer *writer, const char *text)
{
	put_head(writer, MAJOR_TEXT, strlen(text));
	put(writer, text, strlen(text));
}

void qk_cbor_put_bool(struct qk_cbor_writer *writer, bool value)
{
	put_head(writer, MAJOR_SIMPLE, value ? 21u : 20u);
}

void qk_cbor_open_map(struct qk_cbor_writer *writer)
{
	put(writer, "\xbf", 1);
}

void qk_cbor_open_array(struct qk_cbor_writer *writer)
{
	put(writer, "\x9f", 1);
}

void qk_cbor_close(struct qk_cbor_writer *writer)
{
	put(writer, "\xff", 1);
}

void qk_cbor_pair_uint(struct qk_cbor_writer *writer, const char *key, uint64_t value)
{
	qk_cbor_put_text(writer, key);
	qk_cbor_put_uint(writer, value);
}

void qk_cbor_pair_text(struct qk_cbor_writer *writer, const char *key, const char *text)
{
	qk_cbor_put_text(writer, key);
	qk_cbor_put_text(writer, text);
}

void qk_cbor_pair_bool(struct qk_cbor_writer *writer, const char *key, bool value)
{
	qk_cbor_put_text(writer, key);
	qk_cbor_put_bool(writer, value);
}

void qk_cbor_pair_bytes(struct qk_cbor_writer *writer, const char *key, const void *data, size_t size)
{
	qk_cbor_put_text(writer, key);
	qk_cbor_put_bytes(writer, data, size);
}
