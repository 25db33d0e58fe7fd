/* SPDX-License-Identifier: Apache-2.0 */
#include "qk_slots.h"

#include <errno.h>
#include <string.h>

#include "qk_crc.h"

#define HEADER_BYTES 92u
#define NAME_AT 56u
#define NAME_UNITS 36u
#define ATTRIBUTES_AT 48u
#define SLOT_BYTE 6u /* bits 48 to 55 of the attributes */

static uint64_t get(const uint8_t *p, unsigned bytes)
{
	uint64_t value = 0;

	while (bytes) {
		value = value << 8 | p[--bytes];
	}
	return value;
}

static void put(uint8_t *p, unsigned bytes, uint64_t value)
{
	for (unsigned i = 0; i < bytes; i++) {
		p[i] = (uint8_t)(value >> (8 * i));
	}
}

static uint64_t array_sectors(const struct qk_disk *disk, uint32_t count)
{
	return (count * QK_GPT_ENTRY_BYTES + disk->sector_bytes - 1) / disk->sector_bytes;
}

static uint64_t entries_lba(const struct qk_disk *disk, uint32_t count, bool backup)
{
	return backup ? disk->sectors - 1 - array_sectors(disk, count) : 2;
}

static int load(const struct qk_disk *disk, struct qk_gpt *gpt, bool backup)
{
	uint64_t lba = backup ? disk->sectors - 1 : 1, size, count;
	uint8_t *h = gpt->header;
	uint32_t crc;
	int error = disk->read(disk->context, lba * disk->sector_bytes, h, disk->sector_bytes);

	if (error) {
		return error;
	}
	size = get(h + 12, 4);
	count = get(h + 80, 4);
	if (memcmp(h, "EFI PART", 8) || size < HEADER_BYTES || size > disk->sector_bytes || get(h + 24, 8) != lba ||
	    get(h + 84, 4) != QK_GPT_ENTRY_BYTES || !count || count > QK_GPT_ENTRIES_MAX) {
		return -EINVAL;
	}
	crc = (uint32_t)get(h + 16, 4);
	put(h + 16, 4, 0);
	if (qk_crc32(0, h, size) != crc || get(h + 72, 8) != entries_lba(disk, (uint32_t)count, backup)) {
		return -EINVAL;
	}
	error = disk->read(disk->context, get(h + 72, 8) * disk->sector_bytes, gpt->entries, count * QK_GPT_ENTRY_BYTES);
	if (error) {
		return error;
	}
	if (qk_crc32(0, gpt->entries, count * QK_GPT_ENTRY_BYTES) != (uint32_t)get(h + 88, 4)) {
		return -EINVAL;
	}
	gpt->entry_count = (uint32_t)count;
	gpt->from_backup = backup;
	return 0;
}

int qk_gpt_load(const struct qk_disk *disk, struct qk_gpt *gpt)
{
	if (disk->sector_bytes < 512 || disk->sector_bytes > QK_SECTOR_MAX || disk->sectors < 8) {
		return -EINVAL;
	}
	return load(disk, gpt, false) ? load(disk, gpt, true) : 0;
}

static int store(const struct qk_disk *disk, struct qk_gpt *gpt, bool backup)
{
	static uint8_t padded[sizeof gpt->entries + QK_SECTOR_MAX];
	uint64_t last = disk->sectors - 1, lba = backup ? last : 1, size = gpt->entry_count * QK_GPT_ENTRY_BYTES;
	uint64_t at = entries_lba(disk, gpt->entry_count, backup);
	uint8_t *h = gpt->header;
	int error;

	memset(padded, 0, sizeof padded);
	memcpy(padded, gpt->entries, size);
	error = disk->write(disk->context, at * disk->sector_bytes, padded,
	                    array_sectors(disk, gpt->entry_count) * disk->sector_bytes);
	if (error) {
		return error;
	}
	put(h + 24, 8, lba);
	put(h + 32, 8, backup ? 1 : last);
	put(h + 72, 8, at);
	put(h + 88, 4, qk_crc32(0, gpt->entries, size));
	put(h + 16, 4, 0);
	put(h + 16, 4, qk_crc32(0, h, get(h + 12, 4)));
	return disk->write(disk->context, lba * disk->sector_bytes, h, disk->sector_bytes);
}

int qk_gpt_store(const struct qk_disk *disk, struct qk_gpt *gpt)
{
	bool first = !gpt->from_backup;
	int error = store(disk, gpt, first);

	return error ? error : store(disk, gpt, !first);
}

uint8_t *qk_gpt_attributes(struct qk_gpt *gpt, const char *name)
{
	static const uint8_t unused[16];
	uint8_t wanted[2 * NAME_UNITS] = {0};

	for (unsigned i = 0; i < NAME_UNITS && name[i]; i++) {
		wanted[2 * i] = (uint8_t)name[i];
	}
	for (uint32_t i = 0; i < gpt->entry_count; i++) {
		uint8_t *entry = gpt->entries + i * QK_GPT_ENTRY_BYTES;

		if (memcmp(entry, unused, sizeof unused) && !memcmp(entry + NAME_AT, wanted, sizeof wanted)) {
			return entry + ATTRIBUTES_AT;
		}
	}
	return NULL;
}

static uint8_t with(uint8_t state, unsigned priority, bool active)
{
	state = (uint8_t)(state & ~(QK_SLOT_PRIORITY | QK_SLOT_ACTIVE));
	return (uint8_t)(state | priority | (active ? QK_SLOT_ACTIVE : 0));
}

int qk_slots_next(uint8_t state[2], enum qk_slot_change change, unsigned running)
{
	uint8_t *mine = &state[running & 1u], *other = &state[~running & 1u];

	switch (change) {
	case QK_SLOT_CONFIRM:
		*mine = (uint8_t)(with(0, 3, true) | QK_SLOT_RETRY | QK_SLOT_SUCCESSFUL);
		*other = with(*other, 2, false);
		return 0;
	case QK_SLOT_TRIAL: /* only from a slot that it can fall back to */
		if (!(*mine & QK_SLOT_SUCCESSFUL)) {
			return -EPERM;
		}
		*other = (uint8_t)(with(0, 3, true) | 1u << QK_SLOT_RETRY_SHIFT);
		*mine = with(*mine, 2, false);
		return 0;
	case QK_SLOT_UNTRIAL:
		if (!(*mine & QK_SLOT_SUCCESSFUL)) {
			return -EPERM;
		}
		*mine = with(*mine, 3, true);
		*other = with((uint8_t)(*other & ~QK_SLOT_RETRY), 1, false);
		return 0;
	}
	return -EPERM;
}

static struct qk_gpt table; /* large, and one at a time */

static int both(const struct qk_disk *disk, uint8_t *state[2])
{
	int error = qk_gpt_load(disk, &table);

	for (unsigned i = 0; !error && i < 2; i++) {
		state[i] = qk_gpt_attributes(&table, i ? "boot_b" : "boot_a");
		if (!state[i]) {
			error = -ENOENT;
		} else {
			state[i] += SLOT_BYTE;
		}
	}
	return error;
}

int qk_slots_read(const struct qk_disk *disk, uint8_t state[2])
{
	uint8_t *place[2];
	int error = both(disk, place);

	if (!error) {
		state[0] = *place[0];
		state[1] = *place[1];
	}
	return error;
}

int qk_slots_change(const struct qk_disk *disk, enum qk_slot_change change, unsigned running)
{
	uint8_t *place[2], state[2];
	int error = both(disk, place);

	if (error) {
		return error;
	}
	state[0] = *place[0];
	state[1] = *place[1];
	error = qk_slots_next(state, change, running);
	if (error || (state[0] == *place[0] && state[1] == *place[1])) {
		return error;
	}
	*place[0] = state[0];
	*place[1] = state[1];
	return qk_gpt_store(disk, &table);
}
