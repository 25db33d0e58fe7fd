/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QK_AGENT_H
#define QK_AGENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "qk_slots.h"
#include "qk_telemetry.h"
#include "qk_vbmeta.h"

/* The agent of the virtual AR1: the only process. It loads the kernel's modules, maps every partition that the vbmeta
 * structure binds by a hash tree through dm-verity, mounts system, reports to the host, answers its requests, and talks
 * to the microcontroller. All functions return 0 or -errno, unless they say something else. */

#define QK_TREES_MAX 8
#define QK_EXTENTS_MAX 8

/* --- block.c: the kernel's block devices */

/* Find a block device by the name of its partition; waits for it as long as 5 s. */
int qk_block_find(const char *name, char *device, size_t room);
/* The disk that a partition is on, opened for `qk_slots_*`. */
int qk_block_disk(const char *partition, struct qk_disk *disk);
void qk_block_close(struct qk_disk *disk);
int qk_block_read(const char *device, uint64_t at, void *out, size_t size);
/* Writes, and returns when it is on the medium. */
int qk_block_write(const char *device, uint64_t at, const void *data, size_t size);
/* Loads what /modules/modules.load names, in order. Returns how many could not be loaded. */
int qk_modules_load(void);
/* Reads a whole device from the medium; counts blocks and those that could not be read. Returns the last one's -errno.
 */
int qk_read_all(const char *device, uint64_t size, uint32_t *blocks, uint32_t *failed);
/* Errors that the kernel says dm-verity corrected since boot. */
uint32_t qk_corrected(void);
/* Value of a word on the kernel's command line, `room` bytes with its NUL. */
int qk_cmdline(const char *key, char *value, size_t room);

/* --- dm.c: device-mapper; `made` gets the path of the new device */
int qk_dm_linear(const char *name, const char *device, const struct qk_extent *extents, int count, char *made,
                 size_t room);
int qk_dm_verity(const struct qk_hashtree *tree, const char *device, char *made, size_t room);

/* --- system.c: what started, and whether it is well */
struct qk_system {
	unsigned slot;              /* that runs */
	struct qk_vbmeta vbmeta[2]; /* what each slot holds; zeros where there is none */
	uint8_t slot_state[2];
	uint8_t selftest_count, selftest_passed;
	uint8_t verity_state; /* enum qk_ar1_verity_state */
	uint32_t failed_blocks, corrected_errors;
};
extern struct qk_system qk_system;

/* Maps and reads all partitions with a hash tree, and mounts system. `modules_missing` is part of the self-test. */
void qk_system_start(int modules_missing);
/* Reads all of them again. */
void qk_system_verify(void);
/* Slots and self-tests as they are now. */
void qk_system_look(void);
int qk_system_change(enum qk_slot_change change);
/* What the boot loader shall do at the next start; "" for nothing. */
int qk_system_ask(const char *command);

/* --- port.c: the serial ports */
struct qk_port {
	int fd;
	uint16_t seq;
	uint8_t run[256];
	size_t used;
};
extern struct qk_port qk_host, qk_link;
int qk_port_open(struct qk_port *port, const char *path);
void qk_port_send(struct qk_port *port, uint8_t type, const void *payload, size_t size);
/* Takes what came; calls `frame` for each whole frame of our layout. */
void qk_port_read(struct qk_port *port, void (*frame)(uint8_t type, const uint8_t *payload, size_t size));
uint64_t qk_time_us(void);
uint32_t qk_boot_id(void);

/* --- report.c: what is told to the host once a second, and to the microcontroller when it asks */
void qk_report_identify(void);
void qk_report_all(void);
void qk_report_system(void);
void qk_report_verity(const struct qk_hashtree *tree, uint32_t blocks, uint32_t failed, uint32_t corrected, int error);
void qk_link_frame(uint8_t type, const uint8_t *payload, size_t size);

/* --- request.c */
void qk_request_frame(uint8_t type, const uint8_t *payload, size_t size);

#endif
