/* SPDX-License-Identifier: Apache-2.0 */
/* The AR1's agent as a process of this computer: its own reporting code, with a pseudo-terminal as its UART. Started as
 * `ar1_agent FD`; reports fifty times a second until its standard input ends. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "qk_agent.h"

struct qk_system qk_system;

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

void qk_system_look(void)
{
}

int main(int count, char **words)
{
	struct pollfd input = {.fd = 0, .events = POLLIN};

	uart = count == 2 ? atoi(words[1]) : -1;
	if (qk_port_open(&qk_host, "/dev/ttyS0")) {
		return 1;
	}
	qk_report_identify();
	while (poll(&input, 1, 20) == 0) {
		qk_report_all();
	}
	return 0;
}
