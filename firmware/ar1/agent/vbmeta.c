/* SPDX-License-Identifier: Apache-2.0 */
#include "qk_vbmeta.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "qk_sha2.h"

#define HEADER_BYTES 256u
#define PROPERTY_TAG 0u
#define HASHTREE_TAG 1u
#define HASHTREE_BYTES 180u
#define VERSION_KEY "quark.version"

#define LP_GEOMETRY_MAGIC 0x616c4467u
#define LP_GEOMETRY_BYTES 52u
#define LP_HEADER_MAGIC 0x414c5030u
#define LP_HEADER_BYTES 128u
#define LP_PARTITION_BYTES 52u
#define LP_EXTENT_BYTES 24u

static uint64_t be(const uint8_t *p, unsigned bytes)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < bytes; i++) {
		value = value << 8 | p[i];
	}
	return value;
}

static uint64_t le(const uint8_t *p, unsigned bytes)
{
	uint64_t value = 0;

	while (bytes) {
		value = value << 8 | p[--bytes];
	}
	return value;
}

/* Size of the whole structure and place of its descriptors. */
static int bounds(const uint8_t *data, size_t size, size_t *whole, const uint8_t **descriptors,
                  size_t *descriptors_size)
{
	uint64_t auth, aux, at, length;

	if (size < HEADER_BYTES || memcmp(data, "AVB0", 4)) {
		return -EINVAL;
	}
	size = size < QK_VBMETA_MAX ? size : QK_VBMETA_MAX;
	auth = be(data + 12, 8);
	aux = be(data + 20, 8);
	at = be(data + 96, 8);
	length = be(data + 104, 8);
	if (auth > size - HEADER_BYTES || aux > size - HEADER_BYTES - auth || at > aux || length > aux - at) {
		return -EINVAL;
	}
	*whole = (size_t)(HEADER_BYTES + auth + aux);
	*descriptors = data + HEADER_BYTES + auth + at;
	*descriptors_size = (size_t)length;
	return 0;
}

/* "1.2.3" as major << 24 | minor << 16 | revision. */
static uint32_t packed(const uint8_t *text, size_t size)
{
	char copy[16] = "";
	unsigned long part[3] = {0};
	char *at = copy;

	memcpy(copy, text, size < sizeof copy ? size : sizeof copy - 1);
	for (unsigned i = 0; i < 3; i++) {
		char *end;

		part[i] = strtoul(at, &end, 10);
		at = *end == '.' ? end + 1 : end;
	}
	return (uint32_t)((part[0] & 0xffu) << 24 | (part[1] & 0xffu) << 16 | (part[2] & 0xffffu));
}

/* Body of the next descriptor at `*at`; its size, 0 at the end, -EINVAL. */
static long next(const uint8_t *area, size_t size, size_t *at, uint64_t *tag, const uint8_t **whole)
{
	uint64_t length;

	if (size - *at < 16) {
		return size == *at ? 0 : -EINVAL;
	}
	*tag = be(area + *at, 8);
	length = be(area + *at + 8, 8);
	if (length % 8 || length > size - *at - 16) {
		return -EINVAL;
	}
	*whole = area + *at;
	*at += 16 + (size_t)length;
	return 16 + (long)length;
}

int qk_vbmeta_about(const uint8_t *data, size_t size, struct qk_vbmeta *out)
{
	size_t whole, length, at = 0;
	const uint8_t *area, *d;
	uint8_t digest[QK_SHA256_BYTES];
	struct qk_sha256 hash;
	uint64_t tag;
	long bytes;

	memset(out, 0, sizeof *out);
	if (bounds(data, size, &whole, &area, &length)) {
		return -EINVAL;
	}
	qk_sha256_init(&hash);
	qk_sha256_update(&hash, data, whole);
	qk_sha256_finish(&hash, digest);
	memcpy(out->digest, digest, sizeof out->digest);
	out->rollback_index = be(data + 112, 8);
	while ((bytes = next(area, length, &at, &tag, &d)) > 0) {
		uint64_t key, value;

		if (tag != PROPERTY_TAG || bytes < 34) {
			continue;
		}
		key = be(d + 16, 8);
		value = be(d + 24, 8);
		if (key == sizeof VERSION_KEY - 1 && key < (uint64_t)bytes - 34 && value <= (uint64_t)bytes - 34 - key &&
		    !memcmp(d + 32, VERSION_KEY, key)) {
			out->version = packed(d + 32 + key + 1, (size_t)value);
		}
	}
	return bytes ? -EINVAL : 0;
}

static int take(struct qk_hashtree *t, const uint8_t *d, uint64_t size)
{
	uint64_t name, salt, root;

	if (size < HASHTREE_BYTES) {
		return -EINVAL;
	}
	name = be(d + 104, 4);
	salt = be(d + 108, 4);
	root = be(d + 112, 4);
	if (name >= sizeof t->name || salt > sizeof t->salt || root > sizeof t->root ||
	    HASHTREE_BYTES + name + salt + root > size) {
		return -EINVAL;
	}
	memset(t, 0, sizeof *t);
	t->image_size = be(d + 20, 8);
	t->tree_offset = be(d + 28, 8);
	t->tree_size = be(d + 36, 8);
	t->fec_roots = (uint32_t)be(d + 52, 4);
	t->fec_offset = be(d + 56, 8);
	t->fec_size = be(d + 64, 8);
	memcpy(t->algorithm, d + 72, sizeof t->algorithm - 1);
	t->salt_size = (uint32_t)salt;
	t->root_size = (uint32_t)root;
	memcpy(t->name, d + HASHTREE_BYTES, name);
	memcpy(t->salt, d + HASHTREE_BYTES + name, salt);
	memcpy(t->root, d + HASHTREE_BYTES + name + salt, root);
	return 0;
}

int qk_vbmeta_trees(const uint8_t *data, size_t size, struct qk_hashtree *out, int room)
{
	size_t whole, length, at = 0;
	const uint8_t *area, *d;
	uint64_t tag;
	int count = 0;
	long bytes;

	if (bounds(data, size, &whole, &area, &length)) {
		return -EINVAL;
	}
	while ((bytes = next(area, length, &at, &tag, &d)) > 0) {
		if (tag != HASHTREE_TAG) {
			continue;
		}
		if (count == room || take(&out[count], d, (uint64_t)bytes)) {
			return -EINVAL;
		}
		count++;
	}
	return bytes ? -EINVAL : count;
}

uint64_t qk_lp_backup_at(const uint8_t *geometry, size_t size)
{
	uint64_t metadata, slots;

	if (size < LP_GEOMETRY_BYTES || le(geometry, 4) != LP_GEOMETRY_MAGIC) {
		return 0;
	}
	metadata = le(geometry + 40, 4);
	slots = le(geometry + 44, 4);
	return metadata && metadata <= 1u << 20 && slots && slots <= 4 ? QK_SUPER_METADATA_AT + metadata * slots : 0;
}

/* Both checksums of LP metadata hold. */
static int whole_lp(const uint8_t *data, size_t size, uint64_t header, uint64_t tables)
{
	static const uint8_t zeros[QK_SHA256_BYTES];
	uint8_t digest[QK_SHA256_BYTES];
	struct qk_sha256 hash;

	if (header < LP_HEADER_BYTES || header > size || tables > size - header) {
		return 0;
	}
	qk_sha256_init(&hash);
	qk_sha256_update(&hash, data, 12);
	qk_sha256_update(&hash, zeros, sizeof zeros);
	qk_sha256_update(&hash, data + 44, (size_t)header - 44);
	qk_sha256_finish(&hash, digest);
	if (memcmp(digest, data + 12, sizeof digest)) {
		return 0;
	}
	qk_sha256_init(&hash);
	qk_sha256_update(&hash, data + header, (size_t)tables);
	qk_sha256_finish(&hash, digest);
	return !memcmp(digest, data + 48, sizeof digest);
}

int qk_lp_find(const uint8_t *data, size_t size, const char *name, struct qk_extent *out, int room)
{
	uint64_t header, tables, partitions, count, extents, extent_count;

	if (size < LP_HEADER_BYTES || le(data, 4) != LP_HEADER_MAGIC) {
		return -EINVAL;
	}
	header = le(data + 8, 4);
	tables = le(data + 44, 4);
	partitions = le(data + 80, 4);
	count = le(data + 84, 4);
	extents = le(data + 92, 4);
	extent_count = le(data + 96, 4);
	if (!whole_lp(data, size, header, tables) || le(data + 88, 4) != LP_PARTITION_BYTES ||
	    le(data + 100, 4) != LP_EXTENT_BYTES || partitions + count * LP_PARTITION_BYTES > tables ||
	    extents + extent_count * LP_EXTENT_BYTES > tables) {
		return -EINVAL;
	}
	for (uint64_t i = 0; i < count; i++) {
		const uint8_t *p = data + header + partitions + i * LP_PARTITION_BYTES;
		uint64_t first = le(p + 40, 4), number = le(p + 44, 4);

		if (strncmp((const char *)p, name, 36)) {
			continue;
		}
		if (!number || first + number > extent_count || number > (uint64_t)room) {
			return -EINVAL;
		}
		for (uint64_t k = 0; k < number; k++) {
			const uint8_t *e = data + header + extents + (first + k) * LP_EXTENT_BYTES;

			if (le(e + 8, 4)) { /* only linear ones */
				return -EINVAL;
			}
			out[k] = (struct qk_extent){.start_sector = le(e + 12, 8), .sectors = le(e, 8)};
		}
		return (int)number;
	}
	return -ENOENT;
}
