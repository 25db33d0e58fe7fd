/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <unistd.h>

#include "qk_agent.h"
#include "qk_telemetry.h"

#define TREES_MAX 8

static char suffix[4] = "_a";

/* Physical partitions have the name itself, logical ones are looked up in super. */
static int locate(const char *name, char *device, size_t room)
{
	char full[QK_NAME_MAX + sizeof suffix], super[32];
	struct qk_extent extent;
	int error;

	snprintf(full, sizeof full, "%s%s", name, suffix);
	error = qk_block_find("super", super, sizeof super);
	if (!error && !qk_super_find(super, full, &extent)) {
		return qk_dm_linear(full, &extent, device, room);
	}
	return qk_block_find(full, device, room);
}

static void check(const struct qk_hashtree *tree)
{
	struct qk_wire_ar1_verity event = {0};
	char device[64], mapped[64];
	uint32_t blocks = 0, failed = 0, before = qk_corrected();
	int error = locate(tree->name, device, sizeof device);

	if (!error) {
		error = qk_dm_verity(tree, device, mapped, sizeof mapped);
	}
	if (!error) {
		qk_read_all(mapped, tree->image_size, &blocks, &failed);
		if (!strcmp(tree->name, "system") && mount(mapped, "/system", "erofs", MS_RDONLY, NULL) &&
		    mount(mapped, "/system", "ext4", MS_RDONLY, NULL)) {
			error = -errno;
		}
	}
	strncpy(event.partition, tree->name, sizeof event.partition);
	memcpy(event.root_digest, tree->root, sizeof event.root_digest);
	event.blocks = blocks;
	event.failed_blocks = failed;
	event.corrected_errors = qk_corrected() - before;
	event.error = (uint8_t)-error;
	qk_link_send(QK_WIRE_AR1_VERITY_TYPE, &event, sizeof event);
	printf("verity %s blocks %u failed %u corrected %u error %d\n", tree->name, blocks, failed,
	       (unsigned)event.corrected_errors, -error);
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

int main(void)
{
	struct qk_hashtree trees[TREES_MAX];
	char device[64], name[16], once[8];
	int count, missing;

	mkdir("/dev", 0755);
	mkdir("/proc", 0755);
	mkdir("/sys", 0755);
	mkdir("/system", 0755);
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	mount("proc", "/proc", "proc", 0, NULL);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	setvbuf(stdout, NULL, _IOLBF, 0);
	missing = qk_modules_load();
	qk_cmdline("androidboot.slot_suffix", suffix, sizeof suffix);
	printf("agent link %d modules-missing %d\n", qk_link_open(), missing);
	qk_report_hello();
	snprintf(name, sizeof name, "vbmeta%s", suffix);
	count = qk_block_find(name, device, sizeof device);
	if (!count) {
		count = qk_vbmeta_read(device, trees, TREES_MAX);
	}
	if (count < 0) {
		printf("verity none error %d\n", -count);
	}
	for (int i = 0; i < count; i++) {
		check(&trees[i]);
	}
	show_system();
	if (!qk_cmdline("quark.once", once, sizeof once)) {
		qk_report_load();
		qk_report_thermal();
		printf("agent done\n");
		sync();
		reboot(RB_POWER_OFF);
	}
	for (;;) {
		qk_link_poll();
		qk_report_hello();
		qk_report_load();
		qk_report_thermal();
		usleep(1000000);
	}
}
