/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QK_VBMETA_H
#define QK_VBMETA_H

#include <stddef.h>
#include <stdint.h>

/* vbmeta structures and LP metadata in memory, as libavb's avb_vbmeta_image.h and liblp's metadata_format.h define
 * them. Pure code, tested on the host. Whether they may be trusted was decided before the kernel was started. */

#define QK_BLOCK 4096u
#define QK_NAME_MAX 36u
#define QK_VBMETA_MAX (64u * 1024u)
#define QK_DIGEST_BYTES 8u

/* One partition with a hash tree. Offsets and sizes in bytes of the partition. */
struct qk_hashtree {
	char name[QK_NAME_MAX];
	uint64_t image_size, tree_offset, tree_size, fec_offset, fec_size;
	uint32_t fec_roots;
	uint8_t salt[64], root[64];
	uint32_t salt_size, root_size;
	char algorithm[32];
};

/* What names an image: first bytes of the structure's SHA-256, property quark.version, rollback index. */
struct qk_vbmeta {
	uint8_t digest[QK_DIGEST_BYTES];
	uint32_t version;
	uint64_t rollback_index;
};

/* 0, or -EINVAL where there is no structure. */
int qk_vbmeta_about(const uint8_t *data, size_t size, struct qk_vbmeta *out);
/* Hash-tree descriptors, at most `room`. Returns their number or -EINVAL. */
int qk_vbmeta_trees(const uint8_t *data, size_t size, struct qk_hashtree *out, int room);

/* A run of sectors of 512 bytes of the super partition. */
struct qk_extent {
	uint64_t start_sector, sectors;
};

#define QK_SUPER_GEOMETRY_AT 4096u
#define QK_SUPER_METADATA_AT 12288u
#define QK_LP_MAX 65536u

/* Where the copy of the metadata begins, from the geometry block. 0 where it is damaged. */
uint64_t qk_lp_backup_at(const uint8_t *geometry, size_t size);
/* The extents of a logical partition, at most `room`. Returns their number, -EINVAL for damaged metadata, -ENOENT. */
int qk_lp_find(const uint8_t *data, size_t size, const char *name, struct qk_extent *out, int room);

#endif
