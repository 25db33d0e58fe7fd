/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/klog.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "qk_agent.h"

#define FIND_TRIES 100
#define FIND_WAIT_US 50000
#define WINDOW (64u * QK_BLOCK)

static int look(const char *name, char *device, size_t room)
{
	DIR *folder = opendir("/sys/class/block");
	struct dirent *entry;
	int found = -ENODEV;

	if (!folder) {
		return -errno;
	}
	while (found && (entry = readdir(folder))) {
		char path[320], line[128];
		FILE *file;

		snprintf(path, sizeof path, "/sys/class/block/%s/uevent", entry->d_name);
		file = fopen(path, "r");
		if (!file) {
			continue;
		}
		while (fgets(line, sizeof line, file)) {
			line[strcspn(line, "\n")] = 0;
			if (!strncmp(line, "PARTNAME=", 9) && !strcmp(line + 9, name)) {
				snprintf(device, room, "/dev/%.24s", entry->d_name);
				found = 0;
			}
		}
		fclose(file);
	}
	closedir(folder);
	return found;
}

int qk_block_find(const char *name, char *device, size_t room)
{
	int found = -ENODEV;

	for (int i = 0; i < FIND_TRIES; i++) {
		found = look(name, device, room);
		if (!found) {
			break;
		}
		/* Once some partition is there, those of its disk are: only the first look has to wait. */
		if (!look("super", (char[64]){0}, 64)) {
			return look(name, device, room);
		}
		usleep(FIND_WAIT_US);
	}
	return found;
}

int qk_modules_load(void)
{
	FILE *list = fopen("/modules/modules.load", "r");
	char name[64], path[96];
	int missing = 0;

	while (list && fgets(name, sizeof name, list)) {
		int fd;

		name[strcspn(name, "\n")] = 0;
		snprintf(path, sizeof path, "/modules/%s", name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || syscall(SYS_finit_module, fd, "", 0)) {
			printf("module %s error %d\n", name, errno);
			missing++;
		}
		if (fd >= 0) {
			close(fd);
		}
	}
	if (list) {
		fclose(list);
	}
	return missing;
}

void qk_read_all(const char *device, uint64_t size, uint32_t *blocks, uint32_t *failed)
{
	static uint8_t window[WINDOW];
	int fd = open(device, O_RDONLY | O_CLOEXEC);

	*blocks = *failed = 0;
	for (uint64_t at = 0; fd >= 0 && at < size; at += WINDOW) {
		uint64_t length = size - at < WINDOW ? size - at : WINDOW;

		*blocks += (uint32_t)(length / QK_BLOCK);
		if (pread(fd, window, length, (off_t)at) == (ssize_t)length) {
			continue;
		}
		for (uint64_t block = 0; block < length; block += QK_BLOCK) {
			*failed += pread(fd, window, QK_BLOCK, (off_t)(at + block)) != (ssize_t)QK_BLOCK;
		}
	}
	if (fd >= 0) {
		close(fd);
	}
}

uint32_t qk_corrected(void)
{
	static char text[1 << 18];
	int size = klogctl(3 /* read all */, text, sizeof text - 1);
	uint32_t total = 0;
	const char *at = text;

	text[size > 0 ? size : 0] = 0;
	while ((at = strstr(at, ": corrected "))) {
		at += 12;
		total += (uint32_t)strtoul(at, NULL, 10);
	}
	return total;
}

int qk_cmdline(const char *key, char *value, size_t room)
{
	char line[2048] = "", *word, *rest = line;
	size_t length = strlen(key);
	FILE *file = fopen("/proc/cmdline", "r");

	if (!file || !fgets(line, sizeof line, file)) {
		line[0] = 0;
	}
	if (file) {
		fclose(file);
	}
	while ((word = strsep(&rest, " \n"))) {
		if (!strncmp(word, key, length) && (word[length] == '=' || !word[length])) {
			snprintf(value, room, "%s", word[length] ? word + length + 1 : "");
			return 0;
		}
	}
	return -ENOENT;
}
