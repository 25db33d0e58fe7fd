/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "qk_boot.h"
#include "qk_crc.h"
#include "qk_flash.h"

#define RECORD_MAGIC 0x42534b51u /* "QKSB" */

struct record {
	uint32_t magic;
	uint32_t seq;
	uint8_t confirmed_slot, trial_slot, trial_phase, rollback_reason;
	uint32_t security_counter;
	uint8_t trial_hash[8];
	uint32_t reserved;
	uint32_t crc;
};
_Static_assert(sizeof(struct record) == 32, "records tile a sector");

#define RECORDS_PER_SECTOR (QK_FLASH_SECTOR_BYTES / sizeof(struct record))

static void read_record(const struct qk_boot_layout *layout, unsigned sector, unsigned index, struct record *record)
{
	memcpy(record, qk_flash_map(layout->state_offset[sector] + (uint32_t)(index * sizeof *record)), sizeof *record);
}

static bool whole(const struct record *record)
{
	return record->magic == RECORD_MAGIC && record->crc == qk_crc32(0, record, offsetof(struct record, crc)) &&
	       record->confirmed_slot < QK_SLOT_COUNT;
}

static bool blank(const struct record *record)
{
	const uint8_t *byte = (const uint8_t *)record;

	for (unsigned i = 0; i < sizeof *record; i++) {
		if (byte[i] != 0xff) {
			return false;
		}
	}
	return true;
}

/* Newest whole record; false if there is none. */
static bool newest(const struct qk_boot_layout *layout, struct record *found, unsigned *sector, unsigned *index)
{
	bool any = false;

	for (unsigned s = 0; s < 2; s++) {
		for (unsigned i = 0; i < RECORDS_PER_SECTOR; i++) {
			struct record record;

			read_record(layout, s, i, &record);
			if (whole(&record) && (!any || record.seq > found->seq)) {
				*found = record;
				*sector = s;
				*index = i;
				any = true;
			}
		}
	}
	return any;
}

void qk_boot_state_load(const struct qk_boot_layout *layout, struct qk_boot_state *state)
{
	struct record record;
	unsigned sector, index;

	memset(state, 0, sizeof *state);
	state->trial_slot = QK_SLOT_NONE;
	if (!newest(layout, &record, &sector, &index)) {
		return;
	}
	state->seq = record.seq;
	state->confirmed_slot = record.confirmed_slot;
	state->trial_slot = record.trial_slot;
	state->trial_phase = record.trial_phase;
	state->rollback_reason = record.rollback_reason;
	state->security_counter = record.security_counter;
	memcpy(state->trial_hash, record.trial_hash, sizeof state->trial_hash);
	if (state->trial_slot >= QK_SLOT_COUNT || state->trial_phase > QK_TRIAL_STARTED) {
		state->trial_slot = QK_SLOT_NONE;
		state->trial_phase = QK_TRIAL_IDLE;
	}
}

static bool write_record(const struct qk_boot_layout *layout, unsigned sector, unsigned index,
                         const struct record *record)
{
	return qk_flash_program(layout->state_offset[sector] + (uint32_t)(index * sizeof *record), record, sizeof *record);
}

bool qk_boot_state_append(const struct qk_boot_layout *layout, struct qk_boot_state *state)
{
	struct record last = {0}, record = {
	                              .magic = RECORD_MAGIC,
	                              .confirmed_slot = state->confirmed_slot,
	                              .trial_slot = state->trial_slot,
	                              .trial_phase = state->trial_phase,
	                              .rollback_reason = state->rollback_reason,
	                              .security_counter = state->security_counter,
	                          };
	unsigned sector = 1, index = RECORDS_PER_SECTOR - 1u;
	bool any = newest(layout, &last, &sector, &index);

	memcpy(record.trial_hash, state->trial_hash, sizeof record.trial_hash);
	record.seq = (any ? last.seq : 0) + 1u;
	record.crc = qk_crc32(0, &record, offsetof(struct record, crc));

	/* The next blank place behind the newest record; torn ones are passed over. */
	for (unsigned i = index + 1u; any && i < RECORDS_PER_SECTOR; i++) {
		struct record place;

		read_record(layout, sector, i, &place);
		if (blank(&place)) {
			state->seq = record.seq;
			return write_record(layout, sector, i, &record);
		}
	}
	/* Full, or the very first: start the other sector, which does not hold the newest. */
	sector = 1u - sector;
	if (!qk_flash_erase(layout->state_offset[sector]) || !write_record(layout, sector, 0, &record)) {
		return false;
	}
	state->seq = record.seq;
	return true;
}
