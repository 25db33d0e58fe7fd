/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QK_THERMAL_H
#define QK_THERMAL_H

#include <stdbool.h>
#include <stdint.h>

/* Thermal governor: the hottest zone against its trip table decides the throttle level. Level rises at once and falls
 * one step at a time, below the trip by the hysteresis and after the dwell time. Pure policy; time is an argument. */

#define QK_ZONE_COUNT 5u
#define QK_THROTTLE_LEVELS 3u

struct qk_thermal_trips {
	int16_t trip_decic[QK_THROTTLE_LEVELS]; /* levels 1, 2, 3; INT16_MAX where a zone has none */
};

struct qk_thermal_limits {
	struct qk_thermal_trips zone[QK_ZONE_COUNT];
	int16_t hysteresis_decic;
	uint32_t dwell_ms;
};

struct qk_thermal {
	struct qk_thermal_limits limits;
	uint8_t level;
	uint8_t zone; /* that asked for the level; 255 none */
	uint16_t changes;
	uint32_t changed_ms;
};

void qk_thermal_init(struct qk_thermal *thermal, const struct qk_thermal_limits *limits);

/* Returns true when the level changed. */
bool qk_thermal_step(struct qk_thermal *thermal, const int16_t zone_decic[QK_ZONE_COUNT], uint32_t now_ms);

#endif
