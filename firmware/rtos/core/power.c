/* SPDX-License-Identifier: Apache-2.0 */
#include "qk_power.h"

#include <string.h>

void qk_power_init(struct qk_power *power, const struct qk_power_limits *limits)
{
	memset(power, 0, sizeof *power);
	power->limits = *limits;
}

static void emit(struct qk_power_event *events, unsigned *count, enum qk_power_event_kind kind, uint8_t pack,
                 uint64_t time_us, int32_t value)
{
	if (*count < QK_POWER_EVENTS_MAX) {
		events[(*count)++] = (struct qk_power_event){.kind = kind, .pack = pack, .time_us = time_us, .value = value};
	}
}

/* Removal counts at once, since the other pack must be allowed to feed within the hold-up time; insertion bounces. */
static void watch_presence(struct qk_power *power, const struct qk_power_sample *sample, struct qk_power_event *events,
                           unsigned *count)
{
	for (uint8_t pack = 0; pack < QK_PACK_COUNT; pack++) {
		bool contact = (sample->present >> pack) & 1u;

		if (!contact) {
			power->seen_samples[pack] = 0;
			power->rejected[pack] = false;
			if (power->present[pack]) {
				power->present[pack] = false;
				emit(events, count, QK_POWER_PACK_REMOVED, pack, sample->time_us, 0);
				power->takeover_pending = (uint8_t)(1u << (1u - pack));
				power->switch_us = 0;
			}
			continue;
		}
		if (power->present[pack]) {
			continue;
		}
		if (sample->inrush_ma > power->inrush_ma) {
			power->inrush_ma = sample->inrush_ma;
		}
		if (power->inrush_ma2s < UINT16_MAX) {
			power->inrush_ma2s += sample->inrush_ma2s;
		}
		if (power->seen_samples[pack] < power->limits.debounce_samples) {
			power->seen_samples[pack]++;
		}
		if (power->started && power->seen_samples[pack] < power->limits.debounce_samples) {
			continue;
		}
		power->present[pack] = true;
		power->empty[pack] = false;
		power->takeover_pending &= (uint8_t)~(1u << (1u - pack));
		if (power->started) {
			power->swap_count[pack]++;
			emit(events, count, QK_POWER_PACK_INSERTED, pack, sample->time_us, power->inrush_ma);
			events[*count - 1].inrush_ma2s =
			    power->inrush_ma2s < UINT16_MAX ? (uint16_t)power->inrush_ma2s : UINT16_MAX;
		}
		power->inrush_ma = 0;
		power->inrush_ma2s = 0;
	}
}

static bool usable(struct qk_power *power, const struct qk_power_sample *sample, uint8_t pack,
                   struct qk_power_event *events, unsigned *count)
{
	if (!power->present[pack]) {
		return false;
	}
	if (!((sample->authentic >> pack) & 1u)) {
		if (!power->rejected[pack]) {
			power->rejected[pack] = true;
			emit(events, count, QK_POWER_PACK_REJECTED, pack, sample->time_us, 0);
		}
		return false;
	}
	power->rejected[pack] = false;
	if (power->empty[pack]) {
		power->empty[pack] = sample->pack_mv[pack] < power->limits.pack_mv_restart;
	} else {
		power->empty[pack] = sample->pack_mv[pack] < power->limits.pack_mv_cutoff;
	}
	return !power->empty[pack];
}

static void watch_takeover(struct qk_power *power, const struct qk_power_sample *sample, struct qk_power_event *events,
                           unsigned *count)
{
	int32_t load_ma = (int32_t)sample->pack_ma[0] + sample->pack_ma[1];

	if (power->takeover_pending && sample->switch_us > power->switch_us) {
		power->switch_us = sample->switch_us;
	}
	for (uint8_t pack = 0; pack < QK_PACK_COUNT; pack++) {
		if (!((power->takeover_pending >> pack) & 1u) || load_ma <= 0) {
			continue;
		}
		if ((int32_t)sample->pack_ma[pack] * 100 >= load_ma * (int32_t)power->limits.takeover_share_pct) {
			power->takeover_pending &= (uint8_t)~(1u << pack);
			emit(events, count, QK_POWER_TAKEOVER, pack, sample->time_us, sample->bus_mv_min);
			if (*count) {
				events[*count - 1].switch_us = power->switch_us;
			}
		}
	}
}

static void watch_bus(struct qk_power *power, const struct qk_power_sample *sample, struct qk_power_event *events,
                      unsigned *count)
{
	bool low = sample->bus_mv_min < power->limits.bus_mv_warning;

	if (low && !power->undervoltage) {
		if (power->undervoltage_count < UINT8_MAX) {
			power->undervoltage_count++;
		}
		emit(events, count, QK_POWER_UNDERVOLTAGE, 0, sample->time_us, sample->bus_mv_min);
	}
	power->undervoltage = low;
}

unsigned qk_power_step(struct qk_power *power, const struct qk_power_sample *sample,
                       struct qk_power_event events[QK_POWER_EVENTS_MAX])
{
	unsigned count = 0;
	uint8_t enabled = 0, present = 0;

	watch_presence(power, sample, events, &count);
	for (uint8_t pack = 0; pack < QK_PACK_COUNT; pack++) {
		if (usable(power, sample, pack, events, &count)) {
			enabled |= (uint8_t)(1u << pack);
		}
		if (power->present[pack] && !power->rejected[pack]) {
			present |= (uint8_t)(1u << pack);
		}
	}
	/* With nothing good left, an empty pack still beats darkness: the hardware cuts off by itself at its limit. */
	power->enabled = enabled ? enabled : present;
	watch_takeover(power, sample, events, &count);
	watch_bus(power, sample, events, &count);
	power->started = true;
	return count;
}

uint8_t qk_power_soc_pct(uint16_t pack_mv, int16_t pack_ma, uint16_t pack_mohm)
{
	static const uint16_t ocv_mv[11] = {3300, 3560, 3660, 3720, 3770, 3830, 3920, 4020, 4130, 4270, 4430};
	int32_t open_mv = (int32_t)pack_mv + (int32_t)pack_ma * (int32_t)pack_mohm / 1000;

	if (open_mv <= ocv_mv[0]) {
		return 0;
	}
	for (uint8_t i = 1; i < 11; i++) {
		if (open_mv < ocv_mv[i]) {
			int32_t span = ocv_mv[i] - ocv_mv[i - 1];

			return (uint8_t)(10 * (i - 1) + 10 * (open_mv - ocv_mv[i - 1]) / span);
		}
	}
	return 100;
}

void qk_latch_clear(struct qk_latch *latch, uint16_t seq)
{
	latch->bus_mv_min = UINT16_MAX;
	latch->bus_mv_max = 0;
	latch->load_ma_max = INT16_MIN;
	latch->since_seq = seq;
}

void qk_latch_feed(struct qk_latch *latch, uint16_t bus_mv_min, uint16_t bus_mv_max, int16_t load_ma)
{
	if (bus_mv_min < latch->bus_mv_min) {
		latch->bus_mv_min = bus_mv_min;
	}
	if (bus_mv_max > latch->bus_mv_max) {
		latch->bus_mv_max = bus_mv_max;
	}
	if (load_ma > latch->load_ma_max) {
		latch->load_ma_max = load_ma;
	}
}

void qk_pack_latch_clear(struct qk_pack_latch *latch, uint16_t seq)
{
	for (unsigned pack = 0; pack < QK_PACK_COUNT; pack++) {
		latch->ma_min[pack] = INT16_MAX;
	}
	latch->since_seq = seq;
}

void qk_pack_latch_feed(struct qk_pack_latch *latch, const int16_t ma_min[QK_PACK_COUNT])
{
	for (unsigned pack = 0; pack < QK_PACK_COUNT; pack++) {
		if (ma_min[pack] < latch->ma_min[pack]) {
			latch->ma_min[pack] = ma_min[pack];
		}
	}
}

int16_t qk_power_load_ma(const struct qk_power_sample *sample)
{
	int32_t load_ma = (int32_t)sample->pack_ma[0] + sample->pack_ma[1];

	return (int16_t)(load_ma > INT16_MAX ? INT16_MAX : load_ma < INT16_MIN ? INT16_MIN : load_ma);
}
