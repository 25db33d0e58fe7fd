/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "qk_agent.h"

/* One target of a table: a run of sectors of the new device. The kernel wants targets aligned to 8 bytes. */
#define WORDS_MAX 1024
struct target {
	struct dm_target_spec spec;
	char words[WORDS_MAX];
};

struct request {
	struct dm_ioctl head;
	struct target target[QK_EXTENTS_MAX];
};

static int control(int fd, unsigned long command, struct request *r, const char *name, uint32_t flags, unsigned count)
{
	memset(&r->head, 0, sizeof r->head);
	r->head.version[0] = DM_VERSION_MAJOR;
	r->head.data_size = sizeof *r;
	r->head.data_start = offsetof(struct request, target);
	r->head.flags = flags;
	r->head.target_count = count;
	snprintf(r->head.name, sizeof r->head.name, "%s", name);
	return ioctl(fd, command, r) ? -errno : 0;
}

/* `r` holds the targets, all but their starts. */
static int map(struct request *r, const char *name, unsigned count, char *made, size_t room)
{
	static struct request made_by; /* the kernel writes its answer over what it is given */
	int fd = open("/dev/mapper/control", O_RDWR | O_CLOEXEC), error;
	uint64_t at = 0;

	if (fd < 0) {
		return -errno;
	}
	for (unsigned i = 0; i < count; i++) {
		r->target[i].spec.sector_start = at;
		r->target[i].spec.next = sizeof r->target[i];
		at += r->target[i].spec.length;
	}
	memset(&made_by, 0, sizeof made_by);
	error = control(fd, DM_DEV_CREATE, &made_by, name, 0, 0);
	if (!error) {
		snprintf(made, room, "/dev/dm-%u", minor(made_by.head.dev));
		error = control(fd, DM_TABLE_LOAD, r, name, DM_READONLY_FLAG, count);
	}
	if (!error) {
		error = control(fd, DM_DEV_SUSPEND, r, name, DM_READONLY_FLAG, 0); /* without the suspend flag: resume */
	}
	close(fd);
	return error;
}

int qk_dm_linear(const char *name, const char *device, const struct qk_extent *extents, int count, char *made,
                 size_t room)
{
	static struct request r;

	memset(&r, 0, sizeof r);
	for (int i = 0; i < count; i++) {
		struct target *t = &r.target[i];

		t->spec.length = extents[i].sectors;
		snprintf(t->spec.target_type, sizeof t->spec.target_type, "linear");
		snprintf(t->words, sizeof t->words, "%s %llu", device, (unsigned long long)extents[i].start_sector);
	}
	return map(&r, name, (unsigned)count, made, room);
}

int qk_dm_verity(const struct qk_hashtree *t, const char *device, char *made, size_t room)
{
	static struct request r;
	char name[QK_NAME_MAX + 8], salt[2 * sizeof t->salt + 1] = "-", root[2 * sizeof t->root + 1] = "";
	unsigned long long data = t->image_size / QK_BLOCK;
	char *words = r.target[0].words;
	int used;

	memset(&r, 0, sizeof r);
	for (uint32_t i = 0; i < t->salt_size; i++) {
		sprintf(salt + 2 * i, "%02x", t->salt[i]);
	}
	for (uint32_t i = 0; i < t->root_size; i++) {
		sprintf(root + 2 * i, "%02x", t->root[i]);
	}
	used = snprintf(words, WORDS_MAX, "1 %s %s %u %u %llu %llu %s %s %s", device, device, QK_BLOCK, QK_BLOCK, data,
	                (unsigned long long)(t->tree_offset / QK_BLOCK), t->algorithm, root, salt);
	if (t->fec_roots) {
		snprintf(words + used, WORDS_MAX - (size_t)used,
		         " 8 use_fec_from_device %s fec_roots %u fec_blocks %llu fec_start %llu", device, t->fec_roots,
		         data + (unsigned long long)(t->tree_size / QK_BLOCK), (unsigned long long)(t->fec_offset / QK_BLOCK));
	}
	r.target[0].spec.length = t->image_size / 512;
	snprintf(r.target[0].spec.target_type, sizeof r.target[0].spec.target_type, "verity");
	snprintf(name, sizeof name, "%s-verity", t->name);
	return map(&r, name, 1, made, room);
}
