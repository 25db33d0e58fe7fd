/* SPDX-License-Identifier: Apache-2.0 */
/* The first process of a system that does not work: it hangs for good, and after the watchdog's reset it dies. */
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

int main(void)
{
	char line[2048] = "";
	FILE *file;

	mount("proc", "/proc", "proc", 0, NULL);
	file = fopen("/proc/cmdline", "r");
	if (!file || !fgets(line, sizeof line, file) || strstr(line, "bootreason=watchdog")) {
		return 1;
	}
	for (;;) {
		pause();
	}
}
