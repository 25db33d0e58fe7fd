/* SPDX-License-Identifier: Apache-2.0 */
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "qk_agent.h"

#define PERIOD_US 1000000u

static void mount_all(void)
{
	mkdir("/dev", 0755);
	mkdir("/proc", 0755);
	mkdir("/sys", 0755);
	mkdir("/system", 0755);
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	mount("proc", "/proc", "proc", 0, NULL);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
}

/* What the board calls itself in the device tree: the machine's words, or those that dtbo laid over them. */
static void show_board(void)
{
	char model[64] = "without a name";
	FILE *file = fopen("/proc/device-tree/model", "r");

	if (file) {
		if (!fgets(model, sizeof model, file)) {
			model[0] = 0;
		}
		fclose(file);
	}
	printf("board %s\n", model);
}

int main(void)
{
	uint64_t due;
	int missing, host, link;

	mount_all();
	setvbuf(stdout, NULL, _IOLBF, 0);
	show_board();
	missing = qk_modules_load();
	host = qk_port_open(&qk_host, "/dev/ttyS0");
	link = qk_port_open(&qk_link, "/dev/ttyS1");
	printf("agent: host port %s, link to the microcontroller %s, %d modules missing\n", host ? strerror(-host) : "ok",
	       link ? strerror(-link) : "ok", missing);
	qk_report_identify();
	qk_system_start(missing);
	printf("agent ready\n");
	for (due = qk_time_us();;) {
		struct pollfd waits[] = {{.fd = qk_host.fd, .events = POLLIN}, {.fd = qk_link.fd, .events = POLLIN}};
		uint64_t now = qk_time_us();

		if (now >= due) {
			due = now - due < PERIOD_US ? due + PERIOD_US : now + PERIOD_US;
			qk_report_all();
			continue;
		}
		if (poll(waits, 2, (int)((due - now) / 1000u) + 1) <= 0) {
			continue;
		}
		if (waits[0].revents) {
			qk_port_read(&qk_host, qk_request_frame);
		}
		if (waits[1].revents) {
			qk_port_read(&qk_link, qk_link_frame);
		}
	}
}
