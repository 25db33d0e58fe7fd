/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QK_SLOTS_H
#define QK_SLOTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The A/B slots in a partition table: pure code over a disk, tested on the host with a cut at every write.
 * Source of the table: UEFI specification 2.10, chapter 5.3. Who changes what: docs/decisions/0021. */

#define QK_GPT_ENTRY_BYTES 128u
#define QK_GPT_ENTRIES_MAX 512u
#define QK_SECTOR_MAX 4096u

/* All return 0 or -errno. What was written is on the medium when `write` returns. */
struct qk_disk {
	int (*read)(void *context, uint64_t at, void *out, size_t size);
	int (*write)(void *context, uint64_t at, const void *data, size_t size);
	void *context;
	uint32_t sector_bytes;
	uint64_t sectors;
};

struct qk_gpt {
	uint8_t header[QK_SECTOR_MAX];
	uint8_t entries[QK_GPT_ENTRIES_MAX * QK_GPT_ENTRY_BYTES];
	uint32_t entry_count;
	bool from_backup; /* the primary was not whole */
};

/* Primary, else backup. -EINVAL where neither is whole. */
int qk_gpt_load(const struct qk_disk *disk, struct qk_gpt *gpt);
/* Both copies, the one first that was not read: one of them is whole at any moment. */
int qk_gpt_store(const struct qk_disk *disk, struct qk_gpt *gpt);
/* The attributes of a partition, inside of `entries`; NULL where there is none of that name. */
uint8_t *qk_gpt_attributes(struct qk_gpt *gpt, const char *name);

/* State of a slot: bits 48 to 55 of the attributes of its boot partition. */
#define QK_SLOT_PRIORITY 0x03u
#define QK_SLOT_ACTIVE 0x04u
#define QK_SLOT_RETRY_SHIFT 3u
#define QK_SLOT_RETRY 0x38u
#define QK_SLOT_SUCCESSFUL 0x40u
#define QK_SLOT_UNBOOTABLE 0x80u

enum qk_slot_change { QK_SLOT_CONFIRM, QK_SLOT_TRIAL, QK_SLOT_UNTRIAL };

/* What a change makes of both slots while `running` runs. 0, or -EPERM where it is not allowed. */
int qk_slots_next(uint8_t state[2], enum qk_slot_change change, unsigned running);

int qk_slots_read(const struct qk_disk *disk, uint8_t state[2]);
/* Reads, changes and writes, if there is something to change. */
int qk_slots_change(const struct qk_disk *disk, enum qk_slot_change change, unsigned running);

#endif
