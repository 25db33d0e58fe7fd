/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QK_RETAINED_H
#define QK_RETAINED_H

#include <stdbool.h>
#include <stdint.h>

#include "qk_telemetry.h"

/* Memory that keeps its content over a reset, not over loss of power. Bootloader and application share it, so its
 * layout may only grow at the end: an old bootloader must understand a new application's page. */

#define QK_RETAINED_MAGIC 0x31524b51u /* "QKR1" */

struct qk_retained {
	uint32_t magic;
	uint32_t boot_count;
	uint32_t reset_announced; /* 1: software asked for this reset; anything else: nobody did */
	/* from the bootloader to the application */
	uint8_t slot, image_state, reset_reason, rollback_reason;
	uint32_t security_counter;
	/* crash record of the last run, valid while its CRC is */
	struct qk_wire_fault fault;
	uint32_t fault_crc;
	uint32_t fault_is_new; /* not yet looked at by the bootloader */
};

struct qk_retained *qk_retained(void);
bool qk_retained_fault_valid(void);
void qk_retained_fault_seal(void);

#endif
