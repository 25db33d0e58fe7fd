/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "qk_agent.h"

#define MISC_COMMAND_BYTES 32

struct qk_system qk_system;

static struct qk_hashtree trees[QK_TREES_MAX];
static char mapped[QK_TREES_MAX][64];
static int tree_count, mount_error = -ENOENT, modules_missing;
static bool trees_hold;

/* Physical partitions have the name itself, logical ones are looked up in super. */
static int locate(const char *name, char *device, size_t room)
{
	static uint8_t metadata[QK_LP_MAX];
	char full[QK_NAME_MAX + 4], super[64];
	struct qk_extent extents[QK_EXTENTS_MAX];
	int count = -ENOENT;

	snprintf(full, sizeof full, "%s_%c", name, 'a' + (int)qk_system.slot);
	if (!qk_block_find("super", super, sizeof super)) {
		uint64_t at = QK_SUPER_METADATA_AT;

		count = qk_block_read(super, at, metadata, sizeof metadata);
		if (!count) {
			count = qk_lp_find(metadata, sizeof metadata, full, extents, QK_EXTENTS_MAX);
		}
		if (count == -EINVAL && !qk_block_read(super, QK_SUPER_GEOMETRY_AT, metadata, QK_BLOCK)) {
			at = qk_lp_backup_at(metadata, QK_BLOCK);
			if (at && !qk_block_read(super, at, metadata, sizeof metadata)) {
				count = qk_lp_find(metadata, sizeof metadata, full, extents, QK_EXTENTS_MAX);
			}
		}
		if (count > 0) {
			return qk_dm_linear(full, super, extents, count, device, room);
		}
	}
	return qk_block_find(full, device, room);
}

static int read_tree(int i, int error)
{
	const struct qk_hashtree *tree = &trees[i];
	uint32_t blocks = 0, failed = 0, before = qk_corrected(), corrected;

	if (!error) {
		error = qk_read_all(mapped[i], tree->image_size, &blocks, &failed);
	}
	corrected = qk_corrected() - before;
	qk_system.failed_blocks += failed;
	qk_report_verity(tree, blocks, failed, corrected, error);
	printf("dm-verity: %s: %u blocks read, %u of them cannot be read, %u bytes mended%s%s\n", tree->name, blocks,
	       failed, corrected, error ? ": " : "", error ? strerror(-error) : "");
	return !error && !failed && blocks ? 0 : -EIO;
}

static void judge(bool hold)
{
	qk_system.corrected_errors = qk_corrected();
	trees_hold = hold;
	if (!tree_count) {
		qk_system.verity_state = QK_AR1_VERITY_STATE_NONE;
	} else if (!hold) {
		qk_system.verity_state = QK_AR1_VERITY_STATE_FAILED;
	} else {
		qk_system.verity_state = qk_system.corrected_errors ? QK_AR1_VERITY_STATE_CORRECTED : QK_AR1_VERITY_STATE_WHOLE;
	}
}

static void show_system(void)
{
	char line[80] = "nothing";
	FILE *file = fopen("/system/etc/quark-release", "r");

	if (file) {
		if (!fgets(line, sizeof line, file)) {
			strcpy(line, "nothing");
		}
		fclose(file);
	}
	line[strcspn(line, "\n")] = 0;
	printf("system %s\n", line);
}

void qk_system_start(int missing)
{
	static uint8_t raw[QK_VBMETA_MAX];
	char suffix[8] = "_a", device[64];
	bool hold = true;

	modules_missing = missing;
	qk_cmdline("androidboot.slot_suffix", suffix, sizeof suffix);
	qk_system.slot = suffix[1] == 'b';
	for (unsigned slot = 0; slot < 2; slot++) {
		char name[16];

		snprintf(name, sizeof name, "vbmeta_%c", 'a' + (int)slot);
		if (qk_block_find(name, device, sizeof device) || qk_block_read(device, 0, raw, sizeof raw)) {
			continue;
		}
		(void)qk_vbmeta_about(raw, sizeof raw, &qk_system.vbmeta[slot]);
		if (slot == qk_system.slot) {
			tree_count = qk_vbmeta_trees(raw, sizeof raw, trees, QK_TREES_MAX);
		}
	}
	if (tree_count < 0) {
		printf("verity none error %d\n", -tree_count);
		tree_count = 0;
	}
	for (int i = 0; i < tree_count; i++) {
		int error = locate(trees[i].name, device, sizeof device);

		if (!error) {
			error = qk_dm_verity(&trees[i], device, mapped[i], sizeof mapped[i]);
		}
		if (read_tree(i, error)) {
			hold = false;
		}
		if (!error && !strcmp(trees[i].name, "system")) {
			mount_error = mount(mapped[i], "/system", "erofs", MS_RDONLY, NULL) &&
			                      mount(mapped[i], "/system", "ext4", MS_RDONLY, NULL)
			                  ? -errno
			                  : 0;
		}
	}
	judge(hold);
	show_system();
}

void qk_system_verify(void)
{
	bool hold = true;

	(void)qk_block_write("/proc/sys/vm/drop_caches", 0, "3", 1); /* no fsync there: whatever it says */
	qk_system.failed_blocks = 0;
	for (int i = 0; i < tree_count; i++) {
		if (read_tree(i, mapped[i][0] ? 0 : -ENODEV)) {
			hold = false;
		}
	}
	judge(hold);
}

void qk_system_look(void)
{
	struct qk_disk disk;
	int slots = qk_block_disk("boot_a", &disk);

	if (!slots) {
		slots = qk_slots_read(&disk, qk_system.slot_state);
		qk_block_close(&disk);
	}
	{
		const bool holds[] = {
		    !modules_missing,
		    qk_host.fd >= 0,
		    !slots,
		    tree_count > 0,
		    trees_hold,
		    !mount_error,
#ifdef QK_SABOTAGE_SELFTEST
		    false,
#endif
		};

		qk_system.selftest_count = sizeof holds;
		qk_system.selftest_passed = 0;
		for (unsigned i = 0; i < sizeof holds; i++) {
			qk_system.selftest_passed += holds[i];
		}
	}
}

int qk_system_change(enum qk_slot_change change)
{
	struct qk_disk disk;
	int error = qk_block_disk("boot_a", &disk);

	if (!error) {
		error = qk_slots_change(&disk, change, qk_system.slot);
		qk_block_close(&disk);
	}
	return error;
}

int qk_system_ask(const char *command)
{
	char device[64], words[MISC_COMMAND_BYTES] = "";
	int error = qk_block_find("misc", device, sizeof device);

	snprintf(words, sizeof words, "%s", command);
	return error ? error : qk_block_write(device, 0, words, sizeof words);
}
