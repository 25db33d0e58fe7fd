/* SPDX-License-Identifier: Apache-2.0 */
#include "qk_app.h"

#include <string.h>

#include "qk_board.h"
#include "qk_retained.h"

/* Periods are counted from a fixed start, so that they do not drift; events leave at once. */

#define PERIOD_MS 100u
#define THERMAL_EVERY 5u
#define HELLO_EVERY 10u
#define SLOW_EVERY 10u
#define EVENTS_MAX 32u

/* An event on its way to the line. The largest payload has EVENT_BYTES_MAX bytes. */
#define EVENT_BYTES_MAX 14u
struct pending {
	uint8_t type, size, payload[EVENT_BYTES_MAX];
};
_Static_assert(sizeof(struct qk_wire_takeover) <= EVENT_BYTES_MAX, "takeover");
_Static_assert(sizeof(struct qk_wire_pack_auth) <= EVENT_BYTES_MAX, "pack_auth");

static struct qk_message_queue queue;
static struct pending queue_memory[EVENTS_MAX];
static struct qk_thread thread;
static uint64_t stack[2048 / 8];

void qk_report_event(uint8_t type, const void *payload, size_t size)
{
	struct pending event = {.type = type, .size = (uint8_t)size};

	if (size > EVENT_BYTES_MAX) {
		return;
	}
	memcpy(event.payload, payload, size);
	(void)osMessageQueuePut(&queue, &event, 0, 0);
}

static void send_hello(void)
{
	struct qk_wire_hello hello;
	uint16_t seq;

	qk_identity_hello(&hello);
	(void)qk_stream_send(QK_WIRE_HELLO_TYPE, &hello, sizeof hello, &seq);
}

static void send_power(const struct qk_sense *sense)
{
	struct qk_latch latch = qk_sense_latch_take();
	struct qk_wire_power power = {
	    .bus_mv = sense->sample.bus_mv,
	    .bus_mv_min = latch.bus_mv_min,
	    .bus_mv_max = latch.bus_mv_max,
	    .load_ma_max = latch.load_ma_max,
	    .latched_since_seq = latch.since_seq,
	    .load_ma = qk_power_load_ma(&sense->sample),
	    .supply_state = sense->supply_state,
	    .undervoltage_count = sense->undervoltage_count,
	    .sample_count = sense->sample_count,
	    .sample_lost_count = sense->sample_lost_count,
	    .converter_us = sense->sample.time_us,
	};
	uint16_t seq;

	if (qk_stream_send(QK_WIRE_POWER_TYPE, &power, sizeof power, &seq) == QK_STREAM_SENT) {
		qk_sense_latch_sent(seq);
	} else {
		qk_sense_latch_put_back(&latch); /* an extreme is never lost because its frame was */
	}
}

static void send_battery(const struct qk_sense *sense)
{
	static const uint8_t present[QK_PACK_COUNT] = {QK_BATTERY_PACK_STATE_LEFT_PRESENT,
	                                               QK_BATTERY_PACK_STATE_RIGHT_PRESENT};
	static const uint8_t authentic[QK_PACK_COUNT] = {QK_BATTERY_PACK_STATE_LEFT_AUTHENTIC,
	                                                 QK_BATTERY_PACK_STATE_RIGHT_AUTHENTIC};
	static const uint8_t enabled[QK_PACK_COUNT] = {QK_BATTERY_PACK_STATE_LEFT_ENABLED,
	                                               QK_BATTERY_PACK_STATE_RIGHT_ENABLED};
	struct qk_pack_latch latch = qk_sense_pack_latch_take();
	struct qk_wire_battery battery = {.latched_since_seq = latch.since_seq};
	uint16_t seq;

	for (unsigned pack = 0; pack < QK_PACK_COUNT; pack++) {
		uint16_t mv = sense->sample.pack_mv[pack];
		int16_t ma = sense->sample.pack_ma[pack];

		battery.pack_mv[pack] = mv;
		battery.pack_ma[pack] = ma;
		battery.pack_ma_min[pack] = latch.ma_min[pack];
		battery.pack_temp_decic[pack] = sense->zone_decic[QK_THERMAL_ZONE_BATTERY_LEFT + pack];
		battery.swap_count[pack] = sense->swap_count[pack];
		if (sense->pack_present[pack]) {
			battery.pack_soc_pct[pack] = qk_power_soc_pct(mv, ma, qk_board.power.pack_mohm);
			battery.pack_state |= present[pack];
		}
		if ((sense->sample.authentic >> pack) & 1u) {
			battery.pack_state |= authentic[pack];
		}
		if ((sense->power_enabled >> pack) & 1u) {
			battery.pack_state |= enabled[pack];
		}
	}
	if (qk_stream_send(QK_WIRE_BATTERY_TYPE, &battery, sizeof battery, &seq) == QK_STREAM_SENT) {
		qk_sense_pack_latch_sent(seq);
	} else {
		qk_sense_pack_latch_put_back(&latch);
	}
}

static void send_thermal(const struct qk_sense *sense)
{
	struct qk_wire_thermal thermal = {
	    .throttle_level = sense->throttle_level,
	    .throttle_zone = sense->throttle_zone,
	    .throttle_changes = sense->throttle_changes,
	};
	uint16_t seq;

	memcpy(thermal.zone_decic, sense->zone_decic, sizeof thermal.zone_decic);
	(void)qk_stream_send(QK_WIRE_THERMAL_TYPE, &thermal, sizeof thermal, &seq);
}

/* The crash record of the last run, once. */
static void send_fault(void)
{
	uint16_t seq;

	if (qk_retained_fault_valid()) {
		struct qk_wire_fault fault = qk_retained()->fault;

		(void)qk_stream_send(QK_WIRE_FAULT_TYPE, &fault, sizeof fault, &seq);
	}
}

static void send_events(uint32_t until)
{
	for (;;) {
		struct pending event;
		int32_t left = (int32_t)(until - osKernelGetTickCount());
		uint16_t seq;

		if (left <= 0) {
			return;
		}
		if (qk_stream_yielding()) { /* events are not repeated: keep them until the line is free */
			(void)osDelay((uint32_t)left);
			return;
		}
		if (osMessageQueueGet(&queue, &event, NULL, (uint32_t)left) == osOK) {
			(void)qk_stream_send(event.type, event.payload, event.size, &seq);
		}
	}
}

static void run(void *argument)
{
	uint32_t due = osKernelGetTickCount();

	(void)argument;
	send_hello();
	send_fault();
	for (uint32_t round = 1;; round++) {
		struct qk_sense sense;

		due += PERIOD_MS;
		send_events(due);
		qk_sense_get(&sense);
		if (round % HELLO_EVERY == 0) {
			send_hello();
		}
		if (sense.sample_count) { /* nothing is better than zeros that look like measurements */
			send_power(&sense);
			send_battery(&sense);
			if (round % THERMAL_EVERY == 0) {
				send_thermal(&sense);
			}
			if (round % SLOW_EVERY == 0) {
				qk_slow_report();
			}
		}
		qk_guard_alive(QK_GUARD_REPORT);
	}
}

void qk_report_start(void)
{
	static const osMessageQueueAttr_t queue_attr = {
	    .cb_mem = &queue, .cb_size = sizeof queue, .mq_mem = queue_memory, .mq_size = sizeof queue_memory};
	static const osThreadAttr_t attr = {.name = "report",
	                                    .cb_mem = &thread,
	                                    .cb_size = sizeof thread,
	                                    .stack_mem = stack,
	                                    .stack_size = sizeof stack,
	                                    .priority = osPriorityNormal};

	(void)osMessageQueueNew(EVENTS_MAX, sizeof(struct pending), &queue_attr);
	(void)osThreadNew(run, NULL, &attr);
}
