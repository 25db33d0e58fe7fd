/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "qk_boot.h"
#include "qk_flash.h"
#include "qk_telemetry.h"

static enum qk_image_verdict check_slot(const struct qk_boot_layout *layout, const struct qk_image_policy *policy,
                                        uint8_t slot, struct qk_image *image)
{
	return qk_image_check(qk_flash_map(layout->slot_offset[slot]), layout->slot_bytes, policy, image);
}

static void end_trial(struct qk_boot_state *state, uint8_t reason)
{
	state->trial_slot = QK_SLOT_NONE;
	state->trial_phase = QK_TRIAL_IDLE;
	state->rollback_reason = reason;
	memset(state->trial_hash, 0, sizeof state->trial_hash);
}

/* A requested trial that is sound is marked as started before it runs, so that it runs once. */
static bool start_trial(const struct qk_boot_layout *layout, const struct qk_image_policy *policy,
                        struct qk_boot_state *state, struct qk_boot_decision *decision)
{
	uint8_t slot = state->trial_slot;

	if (check_slot(layout, policy, slot, &decision->image) != QK_IMAGE_OK ||
	    !qk_image_ar1_fits(&decision->image, policy) ||
	    memcmp(decision->image.hash, state->trial_hash, sizeof state->trial_hash) != 0) {
		end_trial(state, QK_ROLLBACK_REASON_BAD_IMAGE);
		(void)qk_boot_state_append(layout, state);
		return false;
	}
	state->trial_phase = QK_TRIAL_STARTED;
	state->rollback_reason = QK_ROLLBACK_REASON_NONE;
	if (!qk_boot_state_append(layout, state)) {
		return false; /* without the mark a bad image would be tried for ever */
	}
	decision->slot = slot;
	decision->image_state = QK_IMAGE_STATE_TRIAL;
	return true;
}

void qk_boot_decide(const struct qk_boot_layout *layout, const struct qk_image_policy *policy, uint8_t fault_reason,
                    struct qk_boot_decision *decision)
{
	struct qk_image_policy limits = *policy;
	struct qk_boot_state state;

	memset(decision, 0, sizeof *decision);
	decision->slot = QK_SLOT_NONE;
	qk_boot_state_load(layout, &state);
	if (state.security_counter > limits.security_counter_min) {
		limits.security_counter_min = state.security_counter;
	}
	if (state.trial_phase == QK_TRIAL_STARTED) {
		end_trial(&state, fault_reason);
		(void)qk_boot_state_append(layout, &state);
	}
	if (state.trial_phase == QK_TRIAL_REQUESTED && start_trial(layout, &limits, &state, decision)) {
		return;
	}
	decision->rollback_reason = state.rollback_reason;
	if (state.seq && check_slot(layout, &limits, state.confirmed_slot, &decision->image) == QK_IMAGE_OK) {
		decision->slot = state.confirmed_slot;
		decision->image_state = QK_IMAGE_STATE_CONFIRMED;
		return;
	}
	/* Factory-fresh, or the confirmed image is damaged: the first sound slot, and say so. */
	for (uint8_t slot = 0; slot < QK_SLOT_COUNT; slot++) {
		if (check_slot(layout, &limits, slot, &decision->image) != QK_IMAGE_OK) {
			continue;
		}
		decision->slot = slot;
		decision->image_state = state.seq ? QK_IMAGE_STATE_FALLBACK : QK_IMAGE_STATE_CONFIRMED;
		end_trial(&state, state.seq ? QK_ROLLBACK_REASON_CONFIRMED_IMAGE_LOST : QK_ROLLBACK_REASON_NONE);
		decision->rollback_reason = state.rollback_reason;
		state.confirmed_slot = slot;
		if (decision->image.security_counter > state.security_counter) {
			state.security_counter = decision->image.security_counter;
		}
		(void)qk_boot_state_append(layout, &state);
		return;
	}
}

enum qk_image_verdict qk_boot_request_trial(const struct qk_boot_layout *layout, const struct qk_image_policy *policy,
                                            uint8_t slot)
{
	struct qk_image_policy limits = *policy;
	struct qk_boot_state state;
	struct qk_image image;
	enum qk_image_verdict verdict;

	qk_boot_state_load(layout, &state);
	if (state.security_counter > limits.security_counter_min) {
		limits.security_counter_min = state.security_counter;
	}
	verdict = check_slot(layout, &limits, slot, &image);
	if (verdict == QK_IMAGE_OK && !qk_image_ar1_fits(&image, &limits)) {
		verdict = QK_IMAGE_AR1_OLD;
	}
	if (verdict != QK_IMAGE_OK) {
		return verdict;
	}
	state.trial_slot = slot;
	state.trial_phase = QK_TRIAL_REQUESTED;
	state.rollback_reason = QK_ROLLBACK_REASON_NONE;
	memcpy(state.trial_hash, image.hash, sizeof state.trial_hash);
	return qk_boot_state_append(layout, &state) ? QK_IMAGE_OK : QK_IMAGE_ABSENT;
}

bool qk_boot_cancel_trial(const struct qk_boot_layout *layout)
{
	struct qk_boot_state state;

	qk_boot_state_load(layout, &state);
	if (state.trial_phase != QK_TRIAL_REQUESTED) {
		return true;
	}
	end_trial(&state, QK_ROLLBACK_REASON_NONE);
	return qk_boot_state_append(layout, &state);
}

bool qk_boot_confirm(const struct qk_boot_layout *layout, uint8_t running_slot, uint32_t security_counter)
{
	struct qk_boot_state state;

	qk_boot_state_load(layout, &state);
	if (state.seq && state.confirmed_slot == running_slot && state.trial_phase == QK_TRIAL_IDLE) {
		return true;
	}
	if (state.trial_phase != QK_TRIAL_STARTED || state.trial_slot != running_slot) {
		return false;
	}
	end_trial(&state, QK_ROLLBACK_REASON_NONE);
	state.confirmed_slot = running_slot;
	if (security_counter > state.security_counter) {
		state.security_counter = security_counter;
	}
	return qk_boot_state_append(layout, &state);
}
