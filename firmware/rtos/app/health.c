/* SPDX-License-Identifier: Apache-2.0 */
#include "qk_app.h"

#include "qk_board.h"
#include "qk_boot.h"
#include "qk_port.h"
#include "qk_retained.h"

/* Self-test: each check in one line, cheap enough to run whenever somebody asks. A new image is confirmed only when all
 * hold, so a check must never depend on luck or on load. */

#define STACK_SPACE_MIN 96u
#define SAMPLES_MIN 5u
#define TEMPERATURE_MIN_DECIC (-400)
#define TEMPERATURE_MAX_DECIC 1250

static bool stacks_have_room(void)
{
	osThreadId_t threads[16];
	uint32_t count = osThreadEnumerate(threads, 16);

	for (uint32_t i = 0; i < count; i++) {
		if (osThreadGetStackSpace(threads[i]) < STACK_SPACE_MIN) {
			return false;
		}
	}
	return true;
}

static bool temperatures_plausible(const struct qk_sense *sense)
{
	for (unsigned zone = 0; zone < QK_ZONE_COUNT; zone++) {
		if (sense->zone_decic[zone] < TEMPERATURE_MIN_DECIC || sense->zone_decic[zone] > TEMPERATURE_MAX_DECIC) {
			return false;
		}
	}
	return true;
}

void qk_health_check(struct qk_health *health)
{
	struct qk_sense sense;
	struct qk_boot_state state;

	qk_sense_get(&sense);
	qk_boot_state_load(&qk_board.layout, &state);
	{
		const struct {
			const char *name;
			bool holds;
		} checks[] = {
		    {"boot state", state.seq != 0},
		    {"running slot", qk_retained()->slot < QK_SLOT_COUNT},
		    {"serial number", qk_identity_serial()[0] != 0},
		    {"converter layout", sense.plant_ok},
		    {"converter samples", sense.sample_count >= SAMPLES_MIN},
		    {"a battery", sense.supply_state != QK_SUPPLY_STATE_NONE},
		    {"bus voltage", sense.sample.bus_mv >= qk_board.bus_mv_min && sense.sample.bus_mv <= qk_board.bus_mv_max},
		    {"temperatures", temperatures_plausible(&sense)},
		    {"stacks", stacks_have_room()},
#ifdef QK_SABOTAGE_SELFTEST
		    {"sabotage", false},
#endif
		};

		health->count = sizeof checks / sizeof checks[0];
		health->passed = 0;
		health->failed = NULL;
		for (unsigned i = 0; i < sizeof checks / sizeof checks[0]; i++) {
			if (checks[i].holds) {
				health->passed++;
			} else if (!health->failed) {
				health->failed = checks[i].name;
			}
		}
	}
}

/* Of all zones, in tenths of a degree Celsius; what is below zero counts as zero. */
static uint32_t hottest_decic(const struct qk_sense *sense)
{
	int32_t hottest = 0;

	for (unsigned zone = 0; zone < QK_ZONE_COUNT; zone++) {
		if (sense->zone_decic[zone] > hottest) {
			hottest = sense->zone_decic[zone];
		}
	}
	return (uint32_t)hottest;
}

void qk_health_put(struct qk_cbor_writer *writer)
{
	struct qk_health health;
	struct qk_sense sense;

	qk_health_check(&health);
	qk_cbor_pair_uint(writer, "passed", health.passed);
	qk_cbor_pair_uint(writer, "total", health.count);
	if (health.failed) {
		qk_cbor_pair_text(writer, "failed", health.failed);
	}
	qk_sense_get(&sense);
	qk_cbor_pair_uint(writer, "bus_mv", sense.sample.bus_mv);
	qk_cbor_pair_uint(writer, "hottest_decic", hottest_decic(&sense));
	for (unsigned pack = 0; pack < QK_PACK_COUNT; pack++) {
		static const char *const keys[QK_PACK_COUNT] = {"soc_left", "soc_right"};

		if (sense.pack_present[pack]) {
			qk_cbor_pair_uint(
			    writer, keys[pack],
			    qk_power_soc_pct(sense.sample.pack_mv[pack], sense.sample.pack_ma[pack], qk_board.power.pack_mohm));
		}
	}
}
