/* SPDX-License-Identifier: Apache-2.0 */
/* The AR1's agent as a process of this computer: its own reporting code, with a pseudo-terminal as its UART. Started as
 * `ar1_agent FD`; reports fifty times a second until its standard input ends. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "qk_agent.h"

static int uart;

int __wrap_open(const char *path, int flags, ...);

int __wrap_open(const char *path, int flags, ...)
{
	(void)flags;
	return strcmp(path, "/dev/ttyS0") ? -1 : uart;
}

int qk_cmdline(const char *key, char *value, size_t room)
{
	(void)key, (void)value, (void)room;
	return -ENOENT;
}

int main(int count, char **words)
{
	struct pollfd input = {.fd = 0, .events = POLLIN};

	uart = count == 2 ? atoi(words[1]) : -1;
	if (qk_link_open()) {
		return 1;
	}
	for (int i = 0; poll(&input, 1, 20) == 0; i++) {
		if (i % 50 == 0) {
			qk_report_hello();
			qk_report_thermal();
		}
		qk_report_load();
		qk_link_poll();
	}
	return 0;
}
