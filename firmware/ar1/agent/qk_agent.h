/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QK_AGENT_H
#define QK_AGENT_H

#include <stddef.h>
#include <stdint.h>

/* The agent of the virtual AR1: the only process. It loads the kernel's modules, maps every partition that the vbmeta
 * structure binds by a hash tree through dm-verity, mounts system, and reports over the link to the microcontroller. */

#define QK_BLOCK 4096u
#define QK_NAME_MAX 36u

/* One partition with a hash tree, as vbmeta describes it. Offsets and sizes in bytes of the partition. */
struct qk_hashtree {
	char name[QK_NAME_MAX];
	uint64_t image_size, tree_offset, tree_size, fec_offset, fec_size;
	uint32_t fec_roots;
	uint8_t salt[64], root[64];
	uint32_t salt_size, root_size;
	char algorithm[32];
};

/* A run of sectors of a block device. */
struct qk_extent {
	char device[32];
	uint64_t start_sector, sectors;
};

/* Find a block device by the name of its partition; waits for it as long as 5 s. 0 or -errno. */
int qk_block_find(const char *name, char *device, size_t room);

/* Loads what /modules/modules.load names, in order. Returns how many could not be loaded. */
int qk_modules_load(void);

/* Hash-tree descriptors of a vbmeta structure; at most `room`. Returns their number or -errno. */
int qk_vbmeta_read(const char *device, struct qk_hashtree *out, int room);

/* Where a logical partition is: the only extent of `name` in a super partition. 0 or -errno. */
int qk_super_find(const char *device, const char *name, struct qk_extent *out);

/* Device-mapper devices; `made` gets the path of the new device. 0 or -errno. */
int qk_dm_linear(const char *name, const struct qk_extent *extent, char *made, size_t room);
int qk_dm_verity(const struct qk_hashtree *tree, const char *device, char *made, size_t room);

/* Reads a whole device; counts blocks and those that could not be read. */
void qk_read_all(const char *device, uint64_t size, uint32_t *blocks, uint32_t *failed);

/* Errors that the kernel says dm-verity corrected since boot. */
uint32_t qk_corrected(void);

/* The link: frames out, frames in. */
int qk_link_open(void);
void qk_link_send(uint8_t type, const void *payload, size_t size);
void qk_link_poll(void);
void qk_report_hello(void);
void qk_report_load(void);
void qk_report_thermal(void);
uint64_t qk_time_us(void);

/* Value of a word on the kernel's command line, `room` bytes with its NUL. 0 or -ENOENT. */
int qk_cmdline(const char *key, char *value, size_t room);

#endif
