/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QK_CBOR_H
#define QK_CBOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The part of CBOR (RFC 8949) that SMP needs: maps with text keys; integers, byte and text strings, booleans, arrays
 * and maps as values. No allocation; every read is bounded by the buffer, nesting by QK_CBOR_DEPTH_MAX. */

#define QK_CBOR_DEPTH_MAX 6u

struct qk_cbor_reader {
	const uint8_t *at, *end;
};

struct qk_cbor_text {
	const uint8_t *data;
	size_t size;
};

enum qk_cbor_kind {
	QK_CBOR_END,
	QK_CBOR_UINT,
	QK_CBOR_NEGATIVE,
	QK_CBOR_BYTES,
	QK_CBOR_TEXT,
	QK_CBOR_BOOL,
	QK_CBOR_OTHER
};

struct qk_cbor_value {
	enum qk_cbor_kind kind;
	uint64_t number;          /* UINT; BOOL: 0 or 1 */
	struct qk_cbor_text text; /* BYTES, TEXT */
};

struct qk_cbor_map {
	struct qk_cbor_reader *reader;
	uint64_t left; /* entries; UINT64_MAX for indefinite length */
};

/* Opens a map at the reader. False: not a map. */
bool qk_cbor_map_open(struct qk_cbor_map *map, struct qk_cbor_reader *reader);

/* Next entry: 1 with key and value, 0 at the end, -1 if the bytes are not CBOR or nest too deep. A value of kind OTHER
 * has been skipped as a whole. */
int qk_cbor_map_next(struct qk_cbor_map *map, struct qk_cbor_text *key, struct qk_cbor_value *value);

bool qk_cbor_key_is(const struct qk_cbor_text *key, const char *name);

struct qk_cbor_writer {
	uint8_t *at, *end;
	bool full; /* something did not fit */
};

void qk_cbor_put_uint(struct qk_cbor_writer *writer, uint64_t value);
void qk_cbor_put_bytes(struct qk_cbor_writer *writer, const void *data, size_t size);
void qk_cbor_put_text(struct qk_cbor_writer *writer, const char *text);
void qk_cbor_put_bool(struct qk_cbor_writer *writer, bool value);
void qk_cbor_open_map(struct qk_cbor_writer *writer); /* indefinite length: close with qk_cbor_close */
void qk_cbor_open_array(struct qk_cbor_writer *writer);
void qk_cbor_close(struct qk_cbor_writer *writer);

/* Key and value at once. */
void qk_cbor_pair_uint(struct qk_cbor_writer *writer, const char *key, uint64_t value);
void qk_cbor_pair_text(struct qk_cbor_writer *writer, const char *key, const char *text);
void qk_cbor_pair_bool(struct qk_cbor_writer *writer, const char *key, bool value);
void qk_cbor_pair_bytes(struct qk_cbor_writer *writer, const char *key, const void *data, size_t size);

#endif
