/* SPDX-License-Identifier: Apache-2.0 */
#include "qk_app.h"

#include <string.h>

#include "qk_board.h"
#include "qk_plant.h"
#include "qk_port.h"

/* Converter samples arrive in a ring at 1 kHz or more, as a DMA would put them there; this thread takes them in
 * batches, at once when the power path rings the doorbell. */

#define RING_OFFSET 0x80u
#define STATUS_OFFSET 0x60u
#define RING_SAMPLES 1024u
#define PERIOD_MS 40u
#define SAMPLE_NS 1000000u
#define EVENT_DOORBELL 1u
#define NO_CALIBRATION 0xffffffffu

static struct qk_mutex mutex;
static struct qk_event_flags events;
static struct qk_thread thread;
static uint64_t stack[2048 / 8];

static struct qk_sense sense; /* guarded by the mutex, like the latch */
static struct qk_latch latch;
static struct qk_pack_latch pack_latch;
static uint16_t slow_ack; /* written by one thread, read by another: 16 bits at once */
static struct qk_power power;
static struct qk_thermal thermal;
static struct qk_wire_bus block; /* of this thread alone */

void qk_sense_doorbell(void)
{
	(void)osEventFlagsSet(&events, EVENT_DOORBELL);
}

void qk_sense_get(struct qk_sense *out)
{
	(void)osMutexAcquire(&mutex, osWaitForever);
	*out = sense;
	(void)osMutexRelease(&mutex);
}

struct qk_latch qk_sense_latch_take(void)
{
	struct qk_latch taken;

	(void)osMutexAcquire(&mutex, osWaitForever);
	taken = latch;
	qk_latch_clear(&latch, latch.since_seq);
	(void)osMutexRelease(&mutex);
	return taken;
}

void qk_sense_latch_sent(uint16_t seq)
{
	(void)osMutexAcquire(&mutex, osWaitForever);
	latch.since_seq = seq;
	(void)osMutexRelease(&mutex);
}

void qk_sense_latch_put_back(const struct qk_latch *taken)
{
	(void)osMutexAcquire(&mutex, osWaitForever);
	qk_latch_feed(&latch, taken->bus_mv_min, taken->bus_mv_max, taken->load_ma_max);
	(void)osMutexRelease(&mutex);
}

struct qk_pack_latch qk_sense_pack_latch_take(void)
{
	struct qk_pack_latch taken;

	(void)osMutexAcquire(&mutex, osWaitForever);
	taken = pack_latch;
	qk_pack_latch_clear(&pack_latch, pack_latch.since_seq);
	(void)osMutexRelease(&mutex);
	return taken;
}

void qk_sense_pack_latch_sent(uint16_t seq)
{
	(void)osMutexAcquire(&mutex, osWaitForever);
	pack_latch.since_seq = seq;
	(void)osMutexRelease(&mutex);
}

void qk_sense_pack_latch_put_back(const struct qk_pack_latch *taken)
{
	(void)osMutexAcquire(&mutex, osWaitForever);
	qk_pack_latch_feed(&pack_latch, taken->ma_min);
	(void)osMutexRelease(&mutex);
}

void qk_sense_slow_read(uint16_t version)
{
	slow_ack = version;
}

static void tell(const struct qk_power_event *event)
{
	switch (event->kind) {
	case QK_POWER_PACK_REMOVED: {
		struct qk_wire_pack_removed out = {.pack = event->pack, .sample_us = event->time_us};

		qk_report_event(QK_WIRE_PACK_REMOVED_TYPE, &out, sizeof out);
		break;
	}
	case QK_POWER_PACK_INSERTED: {
		struct qk_wire_pack_inserted out = {.pack = event->pack,
		                                    .sample_us = event->time_us,
		                                    .inrush_ma = (uint16_t)event->value,
		                                    .inrush_ma2s = event->inrush_ma2s};

		qk_report_event(QK_WIRE_PACK_INSERTED_TYPE, &out, sizeof out);
		break;
	}
	case QK_POWER_PACK_REJECTED: {
		struct qk_wire_pack_rejected out = {.pack = event->pack, .sample_us = event->time_us};

		qk_report_event(QK_WIRE_PACK_REJECTED_TYPE, &out, sizeof out);
		break;
	}
	case QK_POWER_TAKEOVER: {
		struct qk_wire_takeover out = {
		    .pack = event->pack,
		    .sample_us = event->time_us,
		    .bus_mv_min = (uint16_t)event->value,
		    .switch_us = event->switch_us,
		};

		qk_report_event(QK_WIRE_TAKEOVER_TYPE, &out, sizeof out);
		break;
	}
	case QK_POWER_UNDERVOLTAGE: {
		struct qk_wire_undervoltage out = {.sample_us = event->time_us, .bus_mv_min = (uint16_t)event->value};

		qk_report_event(QK_WIRE_UNDERVOLTAGE_TYPE, &out, sizeof out);
		break;
	}
	}
}

/* Sends what the block holds, if anything. What the line does not take is missing from the index, and so noticed. */
static void send_block(void)
{
	uint16_t seq;

	if (block.count) {
		(void)qk_stream_send(QK_WIRE_BUS_TYPE, &block, sizeof block, &seq);
		block.first_index += block.count;
	}
	block.count = 0;
}

/* Only samples that follow each other by one period share a block. */
static void collect(const struct qk_wire_plant_sample *raw)
{
	uint64_t due_us = block.first_us + block.count * (SAMPLE_NS / 1000u);

	if (block.count && raw->time_us != due_us) {
		send_block();
	}
	if (!block.count) {
		memset(block.bus_sample_mv, 0, sizeof block.bus_sample_mv);
		block.first_us = raw->time_us;
		block.period_ns = SAMPLE_NS;
	}
	block.bus_sample_mv[block.count++] = raw->bus_mv;
	if (block.count == QK_WIRE_BUS_SAMPLES) {
		send_block();
	}
}

static void take_sample(const struct qk_wire_plant_sample *raw)
{
	struct qk_power_event found[QK_POWER_EVENTS_MAX];
	struct qk_power_sample sample = {.time_us = raw->time_us,
	                                 .bus_mv = raw->bus_mv,
	                                 .bus_mv_min = raw->bus_mv_min,
	                                 .switch_us = raw->switch_us,
	                                 .inrush_ma = raw->inrush_ma,
	                                 .inrush_ma2s = raw->inrush_ma2s,
	                                 .present = raw->present,
	                                 .authentic = raw->authentic};
	int16_t zone_decic[QK_ZONE_COUNT], ma_min[QK_PACK_COUNT];
	unsigned count;
	bool throttled;

	memcpy(sample.pack_mv, raw->pack_mv, sizeof sample.pack_mv);
	memcpy(sample.pack_ma, raw->pack_ma, sizeof sample.pack_ma);
	memcpy(zone_decic, raw->zone_decic, sizeof zone_decic);
	memcpy(ma_min, raw->pack_ma_min, sizeof ma_min);

	(void)osMutexAcquire(&mutex, osWaitForever);
	count = qk_power_step(&power, &sample, found);
	throttled = qk_thermal_step(&thermal, zone_decic, (uint32_t)(raw->time_us / 1000u));
	qk_pack_latch_feed(&pack_latch, ma_min);
	qk_latch_feed(&latch, sample.bus_mv_min, sample.bus_mv, qk_power_load_ma(&sample));
	sense.sample = sample;
	memcpy(sense.zone_decic, zone_decic, sizeof zone_decic);
	sense.power_enabled = power.enabled;
	sense.supply_state = (uint8_t)((power.present[0] ? 1u : 0u) | (power.present[1] ? 2u : 0u));
	memcpy(sense.pack_present, power.present, sizeof sense.pack_present);
	memcpy(sense.swap_count, power.swap_count, sizeof sense.swap_count);
	sense.undervoltage_count = power.undervoltage_count;
	sense.throttle_level = thermal.level;
	sense.throttle_zone = thermal.zone;
	sense.throttle_changes = thermal.changes;
	sense.sample_count++;
	(void)osMutexRelease(&mutex);

	for (unsigned i = 0; i < count; i++) {
		tell(&found[i]);
	}
	if (throttled) {
		struct qk_wire_throttle_changed out = {.throttle_level = thermal.level, .throttle_zone = thermal.zone};

		qk_report_event(QK_WIRE_THROTTLE_CHANGED_TYPE, &out, sizeof out);
	}
}

/* Everything that waits in the ring; more than the ring holds is lost, and counted. */
static void drain(uint32_t *read_index)
{
	uint8_t *mailbox = (uint8_t *)(uintptr_t)qk_mailbox();
	uint32_t write_index;

	memcpy(&write_index, mailbox + offsetof(struct qk_wire_plant_control, write_index), sizeof write_index);
	qk_memory_barrier();
	if (write_index - *read_index > RING_SAMPLES) {
		uint32_t lost = write_index - *read_index - RING_SAMPLES / 2u;
		struct qk_wire_samples_lost out = {.lost_count = lost};

		*read_index += lost;
		(void)osMutexAcquire(&mutex, osWaitForever);
		sense.sample_lost_count += lost;
		(void)osMutexRelease(&mutex);
		send_block();
		block.first_index += lost;
		qk_report_event(QK_WIRE_SAMPLES_LOST_TYPE, &out, sizeof out);
	}
	while (*read_index != write_index) {
		struct qk_wire_plant_sample raw;

		memcpy(&raw, mailbox + RING_OFFSET + *read_index % RING_SAMPLES * sizeof raw, sizeof raw);
		take_sample(&raw);
		collect(&raw);
		(*read_index)++;
	}
}

static void publish(uint32_t read_index, uint32_t heartbeat)
{
	struct qk_wire_plant_status status = {
	    .read_index = read_index,
	    .heartbeat = heartbeat,
	    .throttle_level = sense.throttle_level,
	    .pack_enable = sense.power_enabled,
	    .slow_ack = slow_ack,
	};

	memcpy((uint8_t *)(uintptr_t)qk_mailbox() + STATUS_OFFSET, &status, sizeof status);
}

static void run(void *argument)
{
	struct qk_wire_plant_control control;
	uint32_t read_index = 0, heartbeat = 0;

	(void)argument;
	memcpy(&control, (const void *)qk_mailbox(), sizeof control);
	read_index = control.write_index;
	qk_motion_start();
	if (control.layout_hash == QK_PLANT_LAYOUT_HASH && control.hysteresis_decic != NO_CALIBRATION) {
		thermal.limits.hysteresis_decic = (uint16_t)control.hysteresis_decic;
	}
	for (;;) {
		memcpy(&control, (const void *)qk_mailbox(), sizeof control);
		sense.plant_ok = control.layout_hash == QK_PLANT_LAYOUT_HASH;
		if (sense.plant_ok) {
			drain(&read_index);
			qk_motion_drain();
			publish(read_index, ++heartbeat);
		}
		qk_guard_alive(QK_GUARD_SENSE);
		(void)osEventFlagsWait(&events, EVENT_DOORBELL, osFlagsWaitAny, PERIOD_MS);
	}
}

void qk_sense_start(void)
{
	static const osMutexAttr_t mutex_attr = {
	    .attr_bits = osMutexPrioInherit, .cb_mem = &mutex, .cb_size = sizeof mutex};
	static const osEventFlagsAttr_t events_attr = {.cb_mem = &events, .cb_size = sizeof events};
	static const osThreadAttr_t attr = {.name = "sense",
	                                    .cb_mem = &thread,
	                                    .cb_size = sizeof thread,
	                                    .stack_mem = stack,
	                                    .stack_size = sizeof stack,
	                                    .priority = osPriorityHigh};

	qk_power_init(&power, &qk_board.power);
	qk_thermal_init(&thermal, &qk_board.thermal);
	qk_latch_clear(&latch, 0);
	qk_pack_latch_clear(&pack_latch, 0);
	(void)osMutexNew(&mutex_attr);
	(void)osEventFlagsNew(&events_attr);
	(void)osThreadNew(run, NULL, &attr);
}
