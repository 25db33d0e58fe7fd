/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QK_BOARD_H
#define QK_BOARD_H

#include "qk_boot.h"
#include "qk_power.h"
#include "qk_thermal.h"

/* Everything that differs between boards; one const struct a board. */
struct qk_board {
	const char *name;
	uint8_t display_count;
	struct qk_boot_layout layout;
	uint32_t load_address;
	uint32_t load_bytes_max;
	const uint8_t *public_key;
	struct qk_power_limits power;
	struct qk_thermal_limits thermal;
	uint16_t bus_mv_min; /* self-test: what a healthy bus looks like */
	uint16_t bus_mv_max;
};

extern const struct qk_board qk_board;

#endif
