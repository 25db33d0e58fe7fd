/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "qk_agent.h"

/* vbmeta structures and LP metadata, as libavb's avb_vbmeta_image.h and liblp's metadata_format.h define them. Whether
 * they may be trusted was decided before the kernel was started. */

#define VBMETA_MAX (64u * 1024u)
#define HEADER_BYTES 256u
#define HASHTREE_TAG 1u
#define HASHTREE_BYTES 180u
#define SUPER_METADATA_AT 12288u
#define METADATA_MAX 65536u

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

static int read_at(const char *device, uint64_t at, void *out, size_t size)
{
	int fd = open(device, O_RDONLY | O_CLOEXEC);
	ssize_t got;

	if (fd < 0) {
		return -errno;
	}
	got = pread(fd, out, size, (off_t)at);
	close(fd);
	return got == (ssize_t)size ? 0 : -EIO;
}

static int take(struct qk_hashtree *t, const uint8_t *d, uint64_t size)
{
	uint64_t name = be(d + 104, 4), salt = be(d + 108, 4), root = be(d + 112, 4);

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

int qk_vbmeta_read(const char *device, struct qk_hashtree *out, int room)
{
	static uint8_t raw[VBMETA_MAX];
	uint64_t auth, start, size, at = 0;
	int count = 0, error = read_at(device, 0, raw, sizeof raw);

	if (error) {
		return error;
	}
	auth = be(raw + 12, 8);
	start = be(raw + 96, 8);
	size = be(raw + 104, 8);
	if (memcmp(raw, "AVB0", 4) || auth > VBMETA_MAX || start > VBMETA_MAX || size > VBMETA_MAX ||
	    HEADER_BYTES + auth + start + size > VBMETA_MAX) {
		return -EINVAL;
	}
	start += HEADER_BYTES + auth;
	while (size - at >= 16 && count < room) {
		const uint8_t *d = raw + start + at;
		uint64_t length = 16 + be(d + 8, 8);

		if (length < 16 || length > size - at) {
			return -EINVAL;
		}
		if (be(d, 8) == HASHTREE_TAG) {
			if (length < HASHTREE_BYTES || take(&out[count], d, length)) {
				return -EINVAL;
			}
			count++;
		}
		at += length;
	}
	return count;
}

int qk_super_find(const char *device, const char *name, struct qk_extent *out)
{
	static uint8_t raw[METADATA_MAX];
	uint64_t header, tables, partitions, count, extents, extent_count;
	int error = read_at(device, SUPER_METADATA_AT, raw, sizeof raw);

	if (error) {
		return error;
	}
	header = le(raw + 8, 4);
	tables = le(raw + 44, 4);
	partitions = le(raw + 80, 4);
	count = le(raw + 84, 4);
	extents = le(raw + 92, 4);
	extent_count = le(raw + 96, 4);
	if (le(raw, 4) != 0x414C5030 || header > 256 || tables > METADATA_MAX - header || count > 256 ||
	    partitions + count * 52 > tables || extent_count > 1024 || extents + extent_count * 24 > tables) {
		return -EINVAL;
	}
	for (uint64_t i = 0; i < count; i++) {
		const uint8_t *p = raw + header + partitions + i * 52;
		uint64_t first = le(p + 40, 4);

		if (!strncmp((const char *)p, name, 36) && le(p + 44, 4) == 1 && first < extent_count) {
			const uint8_t *e = raw + header + extents + first * 24;

			snprintf(out->device, sizeof out->device, "%s", device);
			out->sectors = le(e, 8);
			out->start_sector = le(e + 12, 8);
			return 0;
		}
	}
	return -ENOENT;
}

struct request {
	struct dm_ioctl head;
	struct dm_target_spec spec;
	char parameters[1024];
};

static int control(int fd, unsigned long command, struct request *r, const char *name, uint32_t flags)
{
	memset(&r->head, 0, sizeof r->head);
	r->head.version[0] = DM_VERSION_MAJOR;
	r->head.data_size = sizeof *r;
	r->head.data_start = sizeof r->head;
	r->head.flags = flags;
	r->head.target_count = command == DM_TABLE_LOAD;
	snprintf(r->head.name, sizeof r->head.name, "%s", name);
	return ioctl(fd, command, r) ? -errno : 0;
}

static int map(const char *name, uint64_t sectors, const char *type, const char *parameters, char *made, size_t room)
{
	struct request r;
	int fd = open("/dev/mapper/control", O_RDWR | O_CLOEXEC), error;

	if (fd < 0) {
		return -errno;
	}
	memset(&r, 0, sizeof r);
	error = control(fd, DM_DEV_CREATE, &r, name, 0);
	if (!error) {
		snprintf(made, room, "/dev/dm-%u", minor(r.head.dev));
		memset(&r.spec, 0, sizeof r.spec);
		r.spec.length = sectors;
		snprintf(r.spec.target_type, sizeof r.spec.target_type, "%s", type);
		snprintf(r.parameters, sizeof r.parameters, "%s", parameters);
		error = control(fd, DM_TABLE_LOAD, &r, name, DM_READONLY_FLAG);
	}
	if (!error) {
		error = control(fd, DM_DEV_SUSPEND, &r, name, DM_READONLY_FLAG); /* without the suspend flag: resume */
	}
	close(fd);
	return error;
}

int qk_dm_linear(const char *name, const struct qk_extent *extent, char *made, size_t room)
{
	char words[96];

	snprintf(words, sizeof words, "%s %llu", extent->device, (unsigned long long)extent->start_sector);
	return map(name, extent->sectors, "linear", words, made, room);
}

int qk_dm_verity(const struct qk_hashtree *t, const char *device, char *made, size_t room)
{
	char words[1024], name[QK_NAME_MAX + 8], salt[2 * sizeof t->salt + 1] = "-", root[2 * sizeof t->root + 1];
	unsigned long long data = t->image_size / QK_BLOCK;
	int used;

	for (uint32_t i = 0; i < t->salt_size; i++) {
		sprintf(salt + 2 * i, "%02x", t->salt[i]);
	}
	for (uint32_t i = 0; i < t->root_size; i++) {
		sprintf(root + 2 * i, "%02x", t->root[i]);
	}
	used = snprintf(words, sizeof words, "1 %s %s %u %u %llu %llu %s %s %s", device, device, QK_BLOCK, QK_BLOCK, data,
	                (unsigned long long)(t->tree_offset / QK_BLOCK), t->algorithm, root, salt);
	if (t->fec_roots) {
		snprintf(words + used, sizeof words - (size_t)used,
		         " 8 use_fec_from_device %s fec_roots %u fec_blocks %llu fec_start %llu", device, t->fec_roots,
		         data + (unsigned long long)(t->tree_size / QK_BLOCK), (unsigned long long)(t->fec_offset / QK_BLOCK));
	}
	snprintf(name, sizeof name, "%s-verity", t->name);
	return map(name, t->image_size / 512, "verity", words, made, room);
}
