/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "qk_check.h"
#include "qk_power.h"
#include "qk_thermal.h"

static const struct qk_power_limits limits = {.pack_mv_cutoff = 3200,
                                              .pack_mv_restart = 3400,
                                              .bus_mv_warning = 3200,
                                              .debounce_samples = 3,
                                              .takeover_share_pct = 90,
                                              .pack_mohm = 250};

static struct qk_power power;
static struct qk_power_event events[QK_POWER_EVENTS_MAX];
static struct qk_power_sample sample;

static void start(void)
{
	qk_power_init(&power, &limits);
	sample = (struct qk_power_sample){.time_us = 0,
	                                  .pack_mv = {4000, 3990},
	                                  .pack_ma = {250, 230},
	                                  .bus_mv = 3950,
	                                  .bus_mv_min = 3940,
	                                  .present = 3,
	                                  .authentic = 3};
	CHECK(qk_power_step(&power, &sample, events) == 0);
	CHECK(power.enabled == 3);
}

static unsigned step(void)
{
	sample.time_us += 1000;
	return qk_power_step(&power, &sample, events);
}

static void packs_that_are_there_at_the_start_are_no_events(void)
{
	start();
	CHECK(step() == 0);
	CHECK(power.swap_count[0] == 0);
}

static void a_removal_is_told_at_once_and_the_other_pack_takes_over(void)
{
	start();
	sample.present = 2;
	sample.authentic = 2;
	sample.pack_ma[0] = 0;
	sample.pack_ma[1] = 480;
	CHECK(step() == 2);
	CHECK(events[0].kind == QK_POWER_PACK_REMOVED && events[0].pack == 0 && events[0].time_us == 1000);
	CHECK(events[1].kind == QK_POWER_TAKEOVER && events[1].pack == 1);
	CHECK(power.enabled == 2);
	CHECK(step() == 0);
}

static void a_takeover_counts_only_when_the_load_has_moved(void)
{
	start();
	sample.present = 2;
	sample.pack_ma[0] = 0;
	sample.pack_ma[1] = 0; /* the bus capacitance feeds the load */
	CHECK(step() == 1);
	CHECK(step() == 0);
	sample.pack_ma[1] = 470;
	CHECK(step() == 1);
	CHECK(events[0].kind == QK_POWER_TAKEOVER && events[0].time_us == 3000);
}

static void a_takeover_tells_how_long_hardware_took_and_not_how_long_another_one_did(void)
{
	start();
	sample.switch_us = 900; /* of a switchover that nobody asked about */
	CHECK(step() == 0);
	sample.present = 2;
	sample.pack_ma[0] = 0;
	sample.pack_ma[1] = 0;
	sample.switch_us = 0;
	CHECK(step() == 1);
	sample.switch_us = 41;
	CHECK(step() == 0);
	sample.switch_us = 0;
	sample.pack_ma[1] = 480;
	CHECK(step() == 1);
	CHECK(events[0].kind == QK_POWER_TAKEOVER && events[0].switch_us == 41);
}

static void an_insertion_tells_its_highest_inrush(void)
{
	static const uint16_t inrush_ma[] = {100, 315, 20};

	start();
	sample.present = 1;
	(void)step();
	sample.present = 3;
	for (unsigned i = 0; i + 1 < limits.debounce_samples; i++) {
		sample.inrush_ma = i < 3 ? inrush_ma[i] : 0;
		sample.inrush_ma2s = i < 3 ? 40 : 0;
		CHECK(step() == 0);
	}
	CHECK(step() == 1);
	CHECK(events[0].kind == QK_POWER_PACK_INSERTED && events[0].value == 315 && events[0].inrush_ma2s == 120);
}

static void an_inrush_of_the_first_touch_is_kept_over_bounces_and_does_not_overflow(void)
{
	start();
	sample.present = 1;
	(void)step();
	for (unsigned i = 0; i < 4; i++) { /* touches, and bounces off */
		sample.present = 3;
		sample.inrush_ma = i ? 10 : 900;
		sample.inrush_ma2s = 30000;
		CHECK(step() == 0);
		sample.present = 1;
		CHECK(step() == 0);
	}
	sample.present = 3;
	sample.inrush_ma = 0;
	sample.inrush_ma2s = 0;
	for (unsigned i = 0; i + 1 < limits.debounce_samples; i++) {
		CHECK(step() == 0);
	}
	CHECK(step() == 1);
	CHECK(events[0].kind == QK_POWER_PACK_INSERTED && events[0].value == 900 && events[0].inrush_ma2s == UINT16_MAX);
	sample.present = 1; /* the next insertion begins anew */
	CHECK(step() >= 1);
	sample.present = 3;
	for (unsigned i = 0; i + 1 < limits.debounce_samples; i++) {
		(void)step();
	}
	CHECK(step() == 1 && events[0].value == 0 && events[0].inrush_ma2s == 0);
}

static void the_lowest_currents_of_both_packs_are_held_until_they_are_taken(void)
{
	struct qk_pack_latch latch;

	qk_pack_latch_clear(&latch, 7);
	qk_pack_latch_feed(&latch, (const int16_t[]){5, -3});
	qk_pack_latch_feed(&latch, (const int16_t[]){-8, 100});
	CHECK(latch.ma_min[0] == -8 && latch.ma_min[1] == -3 && latch.since_seq == 7);
}

static void an_insertion_bounces_before_it_counts(void)
{
	start();
	sample.present = 2;
	(void)step();
	sample.present = 3;
	CHECK(step() == 0);
	sample.present = 2; /* bounce */
	CHECK(step() == 0);
	sample.present = 3;
	CHECK(step() == 0);
	CHECK(step() == 0);
	CHECK(power.enabled == 2);
	CHECK(step() == 1);
	CHECK(events[0].kind == QK_POWER_PACK_INSERTED && events[0].pack == 0);
	CHECK(power.swap_count[0] == 1 && power.enabled == 3);
}

static void a_counterfeit_pack_is_told_once_and_never_enabled(void)
{
	start();
	sample.authentic = 2;
	CHECK(step() == 1);
	CHECK(events[0].kind == QK_POWER_PACK_REJECTED && events[0].pack == 0);
	CHECK(power.enabled == 2);
	CHECK(step() == 0);
}

static void an_empty_pack_is_disabled_with_hysteresis(void)
{
	start();
	sample.pack_mv[0] = 3199;
	(void)step();
	CHECK(power.enabled == 2);
	sample.pack_mv[0] = 3399;
	(void)step();
	CHECK(power.enabled == 2);
	sample.pack_mv[0] = 3400;
	(void)step();
	CHECK(power.enabled == 3);
}

static void an_empty_pack_is_better_than_none(void)
{
	start();
	sample.present = 1;
	sample.pack_mv[0] = 3100;
	(void)step();
	CHECK(power.enabled == 1);
}

static void undervoltage_is_counted_once_a_dip(void)
{
	start();
	sample.bus_mv_min = 3100;
	CHECK(step() == 1);
	CHECK(events[0].kind == QK_POWER_UNDERVOLTAGE && events[0].value == 3100);
	CHECK(step() == 0);
	sample.bus_mv_min = 3900;
	(void)step();
	sample.bus_mv_min = 3000;
	CHECK(step() == 1);
	CHECK(power.undervoltage_count == 2);
}

static void charge_follows_the_table_and_stays_in_range(void)
{
	CHECK(qk_power_soc_pct(0, 0, 250) == 0);
	CHECK(qk_power_soc_pct(3300, 0, 250) == 0);
	CHECK(qk_power_soc_pct(4430, 0, 250) == 100);
	CHECK(qk_power_soc_pct(65535, 32767, 65535) == 100);
	CHECK(qk_power_soc_pct(3830, 0, 250) == 50);
	CHECK(qk_power_soc_pct(3730, 400, 250) == 50); /* 100 mV of sag under load */
	CHECK(qk_power_soc_pct(1000, -32768, 65535) == 0);
}

static void the_latch_holds_the_extremes_until_cleared(void)
{
	struct qk_latch latch;

	qk_latch_clear(&latch, 7);
	qk_latch_feed(&latch, 4000, 4001, -40);
	qk_latch_feed(&latch, 3300, 3990, 900);
	qk_latch_feed(&latch, 3900, 4050, 480);
	CHECK(latch.bus_mv_min == 3300 && latch.bus_mv_max == 4050 && latch.load_ma_max == 900 && latch.since_seq == 7);
	qk_latch_clear(&latch, 9);
	qk_latch_feed(&latch, 3901, 3902, -500);
	CHECK(latch.bus_mv_min == 3901 && latch.bus_mv_max == 3902 && latch.load_ma_max == -500 && latch.since_seq == 9);
}

static void the_load_of_both_packs_saturates(void)
{
	struct qk_power_sample both = {.pack_ma = {30000, 30000}};

	CHECK(qk_power_load_ma(&both) == INT16_MAX);
	both.pack_ma[0] = both.pack_ma[1] = -30000;
	CHECK(qk_power_load_ma(&both) == INT16_MIN);
	both.pack_ma[1] = 30000;
	CHECK(qk_power_load_ma(&both) == 0);
}

static const struct qk_thermal_limits trips = {.zone = {{{750, 850, 950}},
                                                        {{INT16_MAX, INT16_MAX, INT16_MAX}},
                                                        {{INT16_MAX, INT16_MAX, INT16_MAX}},
                                                        {{INT16_MAX, INT16_MAX, INT16_MAX}},
                                                        {{430, 450, 480}}},
                                               .hysteresis_decic = 20,
                                               .dwell_ms = 5000};

static void the_hottest_zone_throttles_at_once(void)
{
	struct qk_thermal thermal;
	int16_t zone[QK_ZONE_COUNT] = {300, 300, 300, 300, 429};

	qk_thermal_init(&thermal, &trips);
	CHECK(!qk_thermal_step(&thermal, zone, 0));
	zone[4] = 480;
	CHECK(qk_thermal_step(&thermal, zone, 1));
	CHECK(thermal.level == 3 && thermal.zone == 4);
}

static void throttling_ends_step_by_step_below_the_hysteresis(void)
{
	struct qk_thermal thermal;
	int16_t zone[QK_ZONE_COUNT] = {300, 300, 300, 300, 450};

	qk_thermal_init(&thermal, &trips);
	CHECK(qk_thermal_step(&thermal, zone, 0) && thermal.level == 2);
	zone[4] = 431; /* below trip 2, above trip 2 minus hysteresis */
	CHECK(!qk_thermal_step(&thermal, zone, 60000));
	zone[4] = 405;
	CHECK(!qk_thermal_step(&thermal, zone, 4999)); /* dwell */
	CHECK(qk_thermal_step(&thermal, zone, 5000) && thermal.level == 1);
	CHECK(!qk_thermal_step(&thermal, zone, 9999));
	CHECK(qk_thermal_step(&thermal, zone, 10000) && thermal.level == 0 && thermal.zone == 255);
	CHECK(thermal.changes == 3);
}

int main(void)
{
	RUN(packs_that_are_there_at_the_start_are_no_events);
	RUN(a_removal_is_told_at_once_and_the_other_pack_takes_over);
	RUN(a_takeover_counts_only_when_the_load_has_moved);
	RUN(a_takeover_tells_how_long_hardware_took_and_not_how_long_another_one_did);
	RUN(an_insertion_tells_its_highest_inrush);
	RUN(an_inrush_of_the_first_touch_is_kept_over_bounces_and_does_not_overflow);
	RUN(the_lowest_currents_of_both_packs_are_held_until_they_are_taken);
	RUN(an_insertion_bounces_before_it_counts);
	RUN(a_counterfeit_pack_is_told_once_and_never_enabled);
	RUN(an_empty_pack_is_disabled_with_hysteresis);
	RUN(an_empty_pack_is_better_than_none);
	RUN(undervoltage_is_counted_once_a_dip);
	RUN(charge_follows_the_table_and_stays_in_range);
	RUN(the_latch_holds_the_extremes_until_cleared);
	RUN(the_load_of_both_packs_saturates);
	RUN(the_hottest_zone_throttles_at_once);
	RUN(throttling_ends_step_by_step_below_the_hysteresis);
	return 0;
}
