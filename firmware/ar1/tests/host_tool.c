/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qk_slots.h"
#include "qk_vbmeta.h"

/* The agent's pure code behind a pipe, for tests in Python: u8 operation, u32 size, that many bytes; answers are a u32
 * size and that many bytes. Input lies in a buffer of exactly its size, so that the sanitizer sees every byte too many.
 */

enum operation { ABOUT = 1, TREES = 2, LP = 3, SLOTS = 4 };

static void answer(const void *data, uint32_t size)
{
	fwrite(&size, sizeof size, 1, stdout);
	fwrite(data, 1, size, stdout);
	fflush(stdout);
}

/* i32 result, then what it found */
static void found(int32_t result, const void *data, size_t size)
{
	static uint8_t out[65536];

	memcpy(out, &result, sizeof result);
	memcpy(out + sizeof result, data, size);
	answer(out, (uint32_t)(sizeof result + size));
}

/* --- a disk whose power fails */

struct cut_disk {
	uint8_t *bytes;
	size_t size;
	size_t left; /* bytes that may still be written */
	uint32_t writes;
};

static int read_disk(void *context, uint64_t at, void *out, size_t size)
{
	struct cut_disk *d = context;

	if (at > d->size || size > d->size - at) {
		return -EIO;
	}
	memcpy(out, d->bytes + at, size);
	return 0;
}

static int write_disk(void *context, uint64_t at, const void *data, size_t size)
{
	struct cut_disk *d = context;
	size_t count = size < d->left ? size : d->left;

	if (at > d->size || size > d->size - at) {
		return -EIO;
	}
	memcpy(d->bytes + at, data, count);
	d->left -= count;
	d->writes++;
	return count == size ? 0 : -EIO;
}

/* u8 change (0xff: only read), u8 running, u16 sector, u32 bytes until the power fails, the disk. Answers result, both
 * states as they were read afterwards (0xffff where no table is whole), and the disk. */
static void slots(uint8_t *body, size_t size)
{
	static uint8_t out[2 + (1u << 20)];
	uint16_t sector;
	uint32_t left;
	struct cut_disk context;
	struct qk_disk disk;
	int result = 0;

	memcpy(&sector, body + 2, 2);
	memcpy(&left, body + 4, 4);
	context = (struct cut_disk){.bytes = body + 8, .size = size - 8, .left = left};
	disk = (struct qk_disk){.read = read_disk,
	                        .write = write_disk,
	                        .context = &context,
	                        .sector_bytes = sector,
	                        .sectors = sector ? (size - 8) / sector : 0};
	if (body[0] != 0xff) {
		result = qk_slots_change(&disk, (enum qk_slot_change)body[0], body[1]);
	}
	if (qk_slots_read(&disk, out)) {
		memset(out, 0xff, 2);
	}
	memcpy(out + 2, context.bytes, context.size);
	{
		uint32_t total = (uint32_t)(sizeof result + 2 + context.size);

		fwrite(&total, sizeof total, 1, stdout);
		fwrite(&result, sizeof result, 1, stdout);
		fwrite(out, 1, 2 + context.size, stdout);
		fflush(stdout);
	}
}

int main(void)
{
	uint8_t operation;
	uint32_t size;

	while (fread(&operation, 1, 1, stdin) == 1 && fread(&size, sizeof size, 1, stdin) == 1 && size <= 1u << 20) {
		uint8_t *body = malloc(size ? size : 1);
		struct qk_vbmeta about;
		struct qk_hashtree trees[4];
		struct qk_extent extents[4];
		int result;

		if (!body || fread(body, 1, size, stdin) != size) {
			return 1;
		}
		switch (operation) {
		case ABOUT:
			result = qk_vbmeta_about(body, size, &about);
			found(result, &about, sizeof about);
			break;
		case TREES:
			result = qk_vbmeta_trees(body, size, trees, 4);
			found(result, trees, result > 0 ? (size_t)result * sizeof trees[0] : 0);
			break;
		case LP: /* a name of 36 bytes, then the metadata */
			result = size < 36 ? -EINVAL : qk_lp_find(body + 36, size - 36, (const char *)body, extents, 4);
			found(result, extents, result > 0 ? (size_t)result * sizeof extents[0] : 0);
			break;
		case SLOTS:
			if (size < 8) {
				return 1;
			}
			slots(body, size);
			break;
		default:
			return 1;
		}
		free(body);
	}
	return 0;
}
