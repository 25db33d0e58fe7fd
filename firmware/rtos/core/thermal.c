/* SPDX-License-Identifier: Apache-2.0 */
#include "qk_thermal.h"

#include <string.h>

#define ZONE_NONE 255u

void qk_thermal_init(struct qk_thermal *thermal, const struct qk_thermal_limits *limits)
{
	memset(thermal, 0, sizeof *thermal);
	thermal->limits = *limits;
	thermal->zone = ZONE_NONE;
}

/* Highest level that any zone asks for when every trip lies `relief_decic` lower. */
static uint8_t wanted(const struct qk_thermal *thermal, const int16_t *zone_decic, int32_t relief_decic, uint8_t *zone)
{
	uint8_t level = 0;

	*zone = ZONE_NONE;
	for (uint8_t z = 0; z < QK_ZONE_COUNT; z++) {
		for (uint8_t l = QK_THROTTLE_LEVELS; l > level; l--) {
			if ((int32_t)zone_decic[z] + relief_decic >= thermal->limits.zone[z].trip_decic[l - 1]) {
				level = l;
				*zone = z;
			}
		}
	}
	return level;
}

bool qk_thermal_step(struct qk_thermal *thermal, const int16_t zone_decic[QK_ZONE_COUNT], uint32_t now_ms)
{
	uint8_t rise_zone, hold_zone;
	uint8_t rise = wanted(thermal, zone_decic, 0, &rise_zone);
	uint8_t hold = wanted(thermal, zone_decic, thermal->limits.hysteresis_decic, &hold_zone);
	uint8_t level = thermal->level;

	if (rise > level) {
		level = rise;
		thermal->zone = rise_zone;
	} else if (hold < level && now_ms - thermal->changed_ms >= thermal->limits.dwell_ms) {
		level--;
		thermal->zone = level ? hold_zone : ZONE_NONE;
	}
	if (level == thermal->level) {
		return false;
	}
	thermal->level = level;
	thermal->changes++;
	thermal->changed_ms = now_ms;
	return true;
}
