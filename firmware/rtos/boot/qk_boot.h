/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QK_BOOT_H
#define QK_BOOT_H

#include <stdbool.h>
#include <stdint.h>

#include "qk_image.h"

/* Which of two slots runs. Images stay where they are: nothing is swapped or moved.
 *
 * The only truth is the newest whole record in the state sectors. Records are appended, never changed; two sectors are
 * used in turn, and the one that holds the newest record is never erased. So a power cut at any flash operation leaves
 * either the old truth or the new one.
 *
 *   idle      -- request trial -->  requested
 *   requested -- boot ----------->  started   (written before the jump)
 *   started   -- confirm -------->  idle, the trial slot is confirmed
 *   started   -- any reset ------>  idle, the confirmed slot runs, with the reason
 */

#define QK_SLOT_COUNT 2u
#define QK_SLOT_NONE 0xffu

enum qk_trial_phase {
	QK_TRIAL_IDLE = 0,
	QK_TRIAL_REQUESTED = 1,
	QK_TRIAL_STARTED = 2,
};

struct qk_boot_layout {
	uint32_t slot_offset[QK_SLOT_COUNT];
	uint32_t slot_bytes;
	uint32_t state_offset[2];
};

struct qk_boot_state {
	uint32_t seq; /* 0: no record yet */
	uint8_t confirmed_slot;
	uint8_t trial_slot;
	uint8_t trial_phase;
	uint8_t rollback_reason; /* enum qk_rollback_reason */
	uint32_t security_counter;
	uint8_t trial_hash[8]; /* binds the trial to the image that was asked for */
};

void qk_boot_state_load(const struct qk_boot_layout *layout, struct qk_boot_state *state);

/* Appends `state` as the new truth; raises state->seq. False: the flash refused, the old truth stays. */
bool qk_boot_state_append(const struct qk_boot_layout *layout, struct qk_boot_state *state);

struct qk_boot_decision {
	uint8_t slot;            /* QK_SLOT_NONE: nothing can be started, wait for serial recovery */
	uint8_t image_state;     /* enum qk_image_state */
	uint8_t rollback_reason; /* enum qk_rollback_reason */
	struct qk_image image;
};

/* Decides at reset and writes what follows from it. `fault_reason` tells how the last run ended:
 * QK_ROLLBACK_REASON_FAULT, _WATCHDOG, or _NOT_CONFIRMED when nothing is known. */
void qk_boot_decide(const struct qk_boot_layout *layout, const struct qk_image_policy *policy, uint8_t fault_reason,
                    struct qk_boot_decision *decision);

/* Asks for one test boot of the image in `slot`, checked in full first. */
enum qk_image_verdict qk_boot_request_trial(const struct qk_boot_layout *layout, const struct qk_image_policy *policy,
                                            uint8_t slot);

/* Withdraws a requested trial, for instance because its slot is about to be overwritten. */
bool qk_boot_cancel_trial(const struct qk_boot_layout *layout);

/* Makes the running image permanent. */
bool qk_boot_confirm(const struct qk_boot_layout *layout, uint8_t running_slot, uint32_t security_counter);

#endif
