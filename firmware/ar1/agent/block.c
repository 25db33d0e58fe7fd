/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
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

int qk_block_read(const char *device, uint64_t at, void *out, size_t size)
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

int qk_block_write(const char *device, uint64_t at, const void *data, size_t size)
{
	int fd = open(device, O_WRONLY | O_CLOEXEC), error;

	if (fd < 0) {
		return -errno;
	}
	error = pwrite(fd, data, size, (off_t)at) == (ssize_t)size && !fsync(fd) ? 0 : -EIO;
	close(fd);
	return error;
}

static int disk_read(void *context, uint64_t at, void *out, size_t size)
{
	return pread(*(int *)context, out, size, (off_t)at) == (ssize_t)size ? 0 : -EIO;
}

static int disk_write(void *context, uint64_t at, const void *data, size_t size)
{
	int fd = *(int *)context;

	return pwrite(fd, data, size, (off_t)at) == (ssize_t)size && !fsync(fd) ? 0 : -EIO;
}

int qk_block_disk(const char *partition, struct qk_disk *disk)
{
	static int fd = -1;
	char device[64], link[96], target[512], *last, *above;
	int sector, error = qk_block_find(partition, device, sizeof device);
	unsigned long long bytes;
	ssize_t size;

	if (error) {
		return error;
	}
	/* .../block/vda/vda3: the folder above is the disk */
	snprintf(link, sizeof link, "/sys/class/block/%s", device + sizeof "/dev/" - 1);
	size = readlink(link, target, sizeof target - 1);
	target[size > 0 ? size : 0] = 0;
	last = strrchr(target, '/');
	if (!last) {
		return -ENODEV;
	}
	*last = 0;
	above = strrchr(target, '/');
	snprintf(link, sizeof link, "/dev/%.60s", above ? above + 1 : target);
	fd = open(link, O_RDWR | O_CLOEXEC);
	if (fd < 0) {
		return -errno;
	}
	*disk = (struct qk_disk){.read = disk_read, .write = disk_write, .context = &fd};
	if (ioctl(fd, BLKSSZGET, &sector) || ioctl(fd, BLKGETSIZE64, &bytes) || sector <= 0) {
		error = -errno;
		qk_block_close(disk);
		return error;
	}
	(void)ioctl(fd, BLKFLSBUF, 0); /* what is on the medium counts, not what was read before */
	disk->sector_bytes = (uint32_t)sector;
	disk->sectors = bytes / (unsigned)sector;
	return 0;
}

void qk_block_close(struct qk_disk *disk)
{
	close(*(int *)disk->context);
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

int qk_read_all(const char *device, uint64_t size, uint32_t *blocks, uint32_t *failed)
{
	static uint8_t window[WINDOW];
	int fd = open(device, O_RDONLY | O_CLOEXEC), error = fd < 0 ? -errno : 0;

	*blocks = *failed = 0;
	if (fd >= 0) {
		(void)ioctl(fd, BLKFLSBUF, 0);
	}
	for (uint64_t at = 0; fd >= 0 && at < size; at += WINDOW) {
		uint64_t length = size - at < WINDOW ? size - at : WINDOW;

		*blocks += (uint32_t)(length / QK_BLOCK);
		if (pread(fd, window, length, (off_t)at) == (ssize_t)length) {
			continue;
		}
		for (uint64_t block = 0; block < length; block += QK_BLOCK) {
			ssize_t got = pread(fd, window, QK_BLOCK, (off_t)(at + block));

			if (got != (ssize_t)QK_BLOCK) {
				error = got < 0 ? -errno : -EIO;
				(*failed)++;
			}
		}
	}
	if (fd >= 0) {
		close(fd);
	}
	return error;
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
