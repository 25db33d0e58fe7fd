/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "qk_agent.h"
#include "qk_frame.h"
#include "qk_telemetry.h"

#define ZONES 4
#define NO_SENSOR (-32768)

static int link_fd = -1;
static uint16_t seq;
static uint32_t boot_id;
static int16_t fed[ZONES] = {NO_SENSOR, NO_SENSOR, NO_SENSOR, NO_SENSOR};

uint64_t qk_time_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

int qk_link_open(void)
{
	struct termios line;

	if (getrandom(&boot_id, sizeof boot_id, GRND_NONBLOCK) != (ssize_t)sizeof boot_id) {
		boot_id = (uint32_t)qk_time_us();
	}
	link_fd = open("/dev/ttyS0", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	if (link_fd < 0 || tcgetattr(link_fd, &line)) {
		return -errno;
	}
	cfmakeraw(&line);
	cfsetspeed(&line, B1000000);
	return tcsetattr(link_fd, TCSANOW, &line) ? -errno : 0;
}

/* Whole frames or none: what does not go out at once is dropped, and its number is missing. */
void qk_link_send(uint8_t type, const void *payload, size_t size)
{
	uint8_t wire[QK_FRAME_WIRE_MAX];
	size_t length =
	    qk_frame_build(wire, type, qk_frame_source(QK_CHIP_AR1, boot_id), seq++, qk_time_us(), payload, size);
	size_t done = 0;

	for (int tries = 0; link_fd >= 0 && done < length && tries < 200; tries++) {
		ssize_t sent = write(link_fd, wire + done, length - done);

		if (sent > 0) {
			done += (size_t)sent;
		} else {
			usleep(1000);
		}
	}
}

/* Takes the temperatures that virtual glasses are told to have. */
void qk_link_poll(void)
{
	static uint8_t run[QK_FRAME_WIRE_MAX];
	static size_t used;
	uint8_t byte;

	while (link_fd >= 0 && read(link_fd, &byte, 1) == 1) {
		if (byte) {
			if (used < sizeof run) {
				run[used++] = byte;
			}
			continue;
		}
		if (used > 12 && qk_frame_parse(run, used) == (int)sizeof(struct qk_wire_ar1_feed) &&
		    run[0] == QK_WIRE_AR1_FEED_TYPE) {
			memcpy(fed, run + 12, sizeof fed);
		}
		used = 0;
	}
}

void qk_report_hello(void)
{
	struct qk_wire_hello hello = {
	    .layout_hash = QK_TELEMETRY_LAYOUT_HASH,
	    .protocol_version = 1,
	    .boot_id = boot_id,
	    .boot_count = 1,
	    .board = QK_BOARD,
	    .version_major = QK_VERSION_MAJOR,
	    .version_minor = QK_VERSION_MINOR,
	    .version_revision = QK_VERSION_REVISION,
	    .uptime_ms = (uint32_t)(qk_time_us() / 1000u),
	};
	char serial[sizeof hello.serial + 1] = "VAR1-1", slot[4] = "_a";

	qk_cmdline("androidboot.serialno", serial, sizeof serial);
	qk_cmdline("androidboot.slot_suffix", slot, sizeof slot);
	memcpy(hello.serial, serial, strlen(serial));
	hello.slot = slot[1] == 'b';
	qk_link_send(QK_WIRE_HELLO_TYPE, &hello, sizeof hello);
}

void qk_report_load(void)
{
	static unsigned long long before_busy, before_all;
	struct qk_wire_ar1_load load = {0};
	unsigned long long t[8] = {0}, all = 0, busy;
	char line[128];
	unsigned runnable = 0;
	FILE *file = fopen("/proc/stat", "r");

	if (file) {
		if (fscanf(file, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &t[0], &t[1], &t[2], &t[3], &t[4], &t[5], &t[6],
		           &t[7]) == 8) {
			for (int i = 0; i < 8; i++) {
				all += t[i];
			}
		}
		while (fgets(line, sizeof line, file)) {
			sscanf(line, "procs_running %u", &runnable);
		}
		fclose(file);
	}
	busy = all - t[3] - t[4];
	if (all > before_all) {
		load.cpu_permille = (uint16_t)(1000u * (busy - before_busy) / (all - before_all));
	}
	before_busy = busy;
	before_all = all;
	load.runnable = (uint16_t)runnable;
	file = fopen("/proc/meminfo", "r");
	while (file && fgets(line, sizeof line, file)) {
		unsigned long kib;

		if (sscanf(line, "MemTotal: %lu", &kib) == 1) {
			load.memory_total_kib = (uint32_t)kib;
		} else if (sscanf(line, "MemAvailable: %lu", &kib) == 1) {
			load.memory_free_kib = (uint32_t)kib;
		}
	}
	if (file) {
		fclose(file);
	}
	qk_link_send(QK_WIRE_AR1_LOAD_TYPE, &load, sizeof load);
}

void qk_report_thermal(void)
{
	struct qk_wire_ar1_thermal message = {0};

	for (int i = 0; i < ZONES; i++) {
		char path[64];
		int millic;
		FILE *file;

		message.zone_decic[i] = fed[i];
		snprintf(path, sizeof path, "/sys/class/thermal/thermal_zone%d/temp", i);
		file = fopen(path, "r");
		if (file) {
			if (fscanf(file, "%d", &millic) == 1) {
				message.zone_decic[i] = (int16_t)(millic / 100);
			}
			fclose(file);
		}
	}
	qk_link_send(QK_WIRE_AR1_THERMAL_TYPE, &message, sizeof message);
}
