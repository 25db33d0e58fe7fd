/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/random.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "qk_agent.h"
#include "qk_frame.h"

struct qk_port qk_host = {.fd = -1}, qk_link = {.fd = -1};

uint64_t qk_time_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

uint32_t qk_boot_id(void)
{
	static uint32_t boot_id;

	if (!boot_id && getrandom(&boot_id, sizeof boot_id, GRND_NONBLOCK) != (ssize_t)sizeof boot_id) {
		boot_id = (uint32_t)qk_time_us() | 1u;
	}
	return boot_id;
}

int qk_port_open(struct qk_port *port, const char *path)
{
	struct termios line;

	port->fd = open(path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	if (port->fd < 0 || tcgetattr(port->fd, &line)) {
		return -errno;
	}
	cfmakeraw(&line);
	cfsetspeed(&line, B1000000);
	return tcsetattr(port->fd, TCSANOW, &line) ? -errno : 0;
}

/* Whole frames or none: what does not go out within 200 ms is dropped, and its number is missing. */
void qk_port_send(struct qk_port *port, uint8_t type, const void *payload, size_t size)
{
	uint8_t wire[QK_FRAME_WIRE_MAX];
	uint8_t source = qk_frame_source(QK_CHIP_AR1, qk_boot_id());
	size_t length = qk_frame_build(wire, type, source, port->seq++, qk_time_us(), payload, size);
	size_t done = 0;

	for (int tries = 0; port->fd >= 0 && done < length && tries < 200; tries++) {
		ssize_t sent = write(port->fd, wire + done, length - done);

		if (sent > 0) {
			done += (size_t)sent;
		} else {
			usleep(1000);
		}
	}
}

void qk_port_read(struct qk_port *port, void (*frame)(uint8_t type, const uint8_t *payload, size_t size))
{
	uint8_t bytes[256];
	ssize_t got = port->fd < 0 ? 0 : read(port->fd, bytes, sizeof bytes);

	for (ssize_t i = 0; i < got; i++) {
		if (bytes[i]) {
			if (port->used < sizeof port->run) {
				port->run[port->used] = bytes[i];
			}
			port->used++; /* a run that is too long is noise up to its end */
			continue;
		}
		if (port->used && port->used <= sizeof port->run) {
			int size = qk_frame_parse(port->run, port->used);

			if (size >= 0) {
				frame(port->run[0], port->run + sizeof(struct qk_wire_frame_header), (size_t)size);
			}
		}
		port->used = 0;
	}
}
