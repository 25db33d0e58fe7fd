/* Generated from protocols/plant.toml by `make gen`. Do not edit. */
/* SPDX-License-Identifier: Apache-2.0 */
/* clang-format off */
#ifndef QK_PLANT_H
#define QK_PLANT_H

#include <stddef.h>
#include <stdint.h>

#define QK_PLANT_LAYOUT_HASH 0x3bf4u

/* Written by the plant model. */
struct qk_wire_plant_control {
	uint32_t write_index; /* Free running; raised after the slot index % 1024 is written. */
	uint32_t layout_hash; /* Of this message set; the firmware refuses another. */
	uint32_t entropy[2]; /* Stand-in for a random number generator. */
	char serial[16]; /* Stand-in for the serial number in fuses. */
	uint32_t ar1_version; /* Stand-in for what the AR1 tells at its start: major << 24 | minor << 16 | revision; 0 while it has said nothing. */
	uint32_t reset_cause; /* Stand-in for the power chip's register: a reset_reason, or 0xffffffff when it has nothing to say. The firmware clears it. */
	uint32_t hysteresis_decic; /* 0.1 degC; Stand-in for the calibration record in flash: hysteresis of the thermal governor, 0xffffffff where there is none. */
} __attribute__((packed));
_Static_assert(sizeof(struct qk_wire_plant_control) == 44, "qk_wire_plant_control");
_Static_assert(offsetof(struct qk_wire_plant_control, write_index) == 0, "qk_wire_plant_control.write_index");
_Static_assert(offsetof(struct qk_wire_plant_control, layout_hash) == 4, "qk_wire_plant_control.layout_hash");
_Static_assert(offsetof(struct qk_wire_plant_control, entropy) == 8, "qk_wire_plant_control.entropy");
_Static_assert(offsetof(struct qk_wire_plant_control, serial) == 16, "qk_wire_plant_control.serial");
_Static_assert(offsetof(struct qk_wire_plant_control, ar1_version) == 32, "qk_wire_plant_control.ar1_version");
_Static_assert(offsetof(struct qk_wire_plant_control, reset_cause) == 36, "qk_wire_plant_control.reset_cause");
_Static_assert(offsetof(struct qk_wire_plant_control, hysteresis_decic) == 40, "qk_wire_plant_control.hysteresis_decic");

/* Written by the firmware. */
struct qk_wire_plant_status {
	uint32_t read_index;
	uint32_t heartbeat; /* Counts sampling rounds. */
	uint8_t throttle_level;
	uint8_t pack_enable; /* Bit 0 left, bit 1 right. */
	uint16_t slow_ack; /* Low bits of the plant_slow version that was read last: what it held may start anew. */
} __attribute__((packed));
_Static_assert(sizeof(struct qk_wire_plant_status) == 12, "qk_wire_plant_status");
_Static_assert(offsetof(struct qk_wire_plant_status, read_index) == 0, "qk_wire_plant_status.read_index");
_Static_assert(offsetof(struct qk_wire_plant_status, heartbeat) == 4, "qk_wire_plant_status.heartbeat");
_Static_assert(offsetof(struct qk_wire_plant_status, throttle_level) == 8, "qk_wire_plant_status.throttle_level");
_Static_assert(offsetof(struct qk_wire_plant_status, pack_enable) == 9, "qk_wire_plant_status.pack_enable");
_Static_assert(offsetof(struct qk_wire_plant_status, slow_ack) == 10, "qk_wire_plant_status.slow_ack");

/* One conversion of all channels. */
struct qk_wire_plant_sample {
	uint64_t time_us; /* us; Plant time. */
	uint16_t pack_mv[2]; /* mV */
	int16_t pack_ma[2]; /* mA; Positive discharges. */
	uint16_t bus_mv; /* mV */
	uint16_t bus_mv_min; /* mV; Lowest since the previous sample: a minimum-hold comparator. */
	int16_t zone_decic[5]; /* 0.1 degC */
	uint8_t present; /* Bit 0 left, bit 1 right. */
	uint8_t authentic; /* Bit 0 left, bit 1 right. */
	int16_t pack_ma_min[2]; /* mA; Lowest since the previous sample, held by hardware. */
	uint16_t switch_us; /* us; Capture timer of the power path: how long the last switchover took; 0 without one since the previous sample. */
	uint16_t inrush_ma; /* mA; Peak current of an insertion since the previous sample, held by hardware. */
	uint16_t inrush_ma2s; /* mA2s; Integral of the squared current of an insertion since the previous sample, held by hardware. */
} __attribute__((packed));
_Static_assert(sizeof(struct qk_wire_plant_sample) == 42, "qk_wire_plant_sample");
_Static_assert(offsetof(struct qk_wire_plant_sample, time_us) == 0, "qk_wire_plant_sample.time_us");
_Static_assert(offsetof(struct qk_wire_plant_sample, pack_mv) == 8, "qk_wire_plant_sample.pack_mv");
_Static_assert(offsetof(struct qk_wire_plant_sample, pack_ma) == 12, "qk_wire_plant_sample.pack_ma");
_Static_assert(offsetof(struct qk_wire_plant_sample, bus_mv) == 16, "qk_wire_plant_sample.bus_mv");
_Static_assert(offsetof(struct qk_wire_plant_sample, bus_mv_min) == 18, "qk_wire_plant_sample.bus_mv_min");
_Static_assert(offsetof(struct qk_wire_plant_sample, zone_decic) == 20, "qk_wire_plant_sample.zone_decic");
_Static_assert(offsetof(struct qk_wire_plant_sample, present) == 30, "qk_wire_plant_sample.present");
_Static_assert(offsetof(struct qk_wire_plant_sample, authentic) == 31, "qk_wire_plant_sample.authentic");
_Static_assert(offsetof(struct qk_wire_plant_sample, pack_ma_min) == 32, "qk_wire_plant_sample.pack_ma_min");
_Static_assert(offsetof(struct qk_wire_plant_sample, switch_us) == 36, "qk_wire_plant_sample.switch_us");
_Static_assert(offsetof(struct qk_wire_plant_sample, inrush_ma) == 38, "qk_wire_plant_sample.inrush_ma");
_Static_assert(offsetof(struct qk_wire_plant_sample, inrush_ma2s) == 40, "qk_wire_plant_sample.inrush_ma2s");

/* What is read over slow buses: gauges, authenticators, charger, and the AR1's lines. Index 0 left, 1 right. */
struct qk_wire_plant_slow {
	uint32_t version; /* Raised before the rest is written. */
	uint8_t gauge_soc_pct[2]; /* % */
	uint8_t max_error_pct[2]; /* % */
	uint16_t remaining_mah[2]; /* mAh */
	uint16_t full_mah[2]; /* mAh */
	uint16_t design_mah[2]; /* mAh */
	uint16_t cycle_count[2];
	uint32_t pack_id[2];
	uint32_t challenge[2]; /* What the authenticator asked the pack. */
	uint32_t response[2];
	uint8_t accepted[2]; /* The authenticator's judgement. */
	uint8_t pack_present; /* Bit 0 left, bit 1 right. */
	uint8_t charger_state;
	uint16_t charge_ma_max; /* mA */
	uint16_t reserved;
	uint32_t sent_count;
	uint32_t lost_count;
	uint32_t latency_us_max; /* us */
	uint32_t wake_us_max; /* us */
	uint32_t hand_over_us_max; /* us */
	uint32_t frame_count;
	uint32_t dropped_count;
	uint32_t camera_frame_count;
	uint32_t camera_dropped_count;
	uint32_t version_end; /* Raised after the rest is written: differs from version while it is being written. */
} __attribute__((packed));
_Static_assert(sizeof(struct qk_wire_plant_slow) == 96, "qk_wire_plant_slow");
_Static_assert(offsetof(struct qk_wire_plant_slow, version) == 0, "qk_wire_plant_slow.version");
_Static_assert(offsetof(struct qk_wire_plant_slow, gauge_soc_pct) == 4, "qk_wire_plant_slow.gauge_soc_pct");
_Static_assert(offsetof(struct qk_wire_plant_slow, max_error_pct) == 6, "qk_wire_plant_slow.max_error_pct");
_Static_assert(offsetof(struct qk_wire_plant_slow, remaining_mah) == 8, "qk_wire_plant_slow.remaining_mah");
_Static_assert(offsetof(struct qk_wire_plant_slow, full_mah) == 12, "qk_wire_plant_slow.full_mah");
_Static_assert(offsetof(struct qk_wire_plant_slow, design_mah) == 16, "qk_wire_plant_slow.design_mah");
_Static_assert(offsetof(struct qk_wire_plant_slow, cycle_count) == 20, "qk_wire_plant_slow.cycle_count");
_Static_assert(offsetof(struct qk_wire_plant_slow, pack_id) == 24, "qk_wire_plant_slow.pack_id");
_Static_assert(offsetof(struct qk_wire_plant_slow, challenge) == 32, "qk_wire_plant_slow.challenge");
_Static_assert(offsetof(struct qk_wire_plant_slow, response) == 40, "qk_wire_plant_slow.response");
_Static_assert(offsetof(struct qk_wire_plant_slow, accepted) == 48, "qk_wire_plant_slow.accepted");
_Static_assert(offsetof(struct qk_wire_plant_slow, pack_present) == 50, "qk_wire_plant_slow.pack_present");
_Static_assert(offsetof(struct qk_wire_plant_slow, charger_state) == 51, "qk_wire_plant_slow.charger_state");
_Static_assert(offsetof(struct qk_wire_plant_slow, charge_ma_max) == 52, "qk_wire_plant_slow.charge_ma_max");
_Static_assert(offsetof(struct qk_wire_plant_slow, reserved) == 54, "qk_wire_plant_slow.reserved");
_Static_assert(offsetof(struct qk_wire_plant_slow, sent_count) == 56, "qk_wire_plant_slow.sent_count");
_Static_assert(offsetof(struct qk_wire_plant_slow, lost_count) == 60, "qk_wire_plant_slow.lost_count");
_Static_assert(offsetof(struct qk_wire_plant_slow, latency_us_max) == 64, "qk_wire_plant_slow.latency_us_max");
_Static_assert(offsetof(struct qk_wire_plant_slow, wake_us_max) == 68, "qk_wire_plant_slow.wake_us_max");
_Static_assert(offsetof(struct qk_wire_plant_slow, hand_over_us_max) == 72, "qk_wire_plant_slow.hand_over_us_max");
_Static_assert(offsetof(struct qk_wire_plant_slow, frame_count) == 76, "qk_wire_plant_slow.frame_count");
_Static_assert(offsetof(struct qk_wire_plant_slow, dropped_count) == 80, "qk_wire_plant_slow.dropped_count");
_Static_assert(offsetof(struct qk_wire_plant_slow, camera_frame_count) == 84, "qk_wire_plant_slow.camera_frame_count");
_Static_assert(offsetof(struct qk_wire_plant_slow, camera_dropped_count) == 88, "qk_wire_plant_slow.camera_dropped_count");
_Static_assert(offsetof(struct qk_wire_plant_slow, version_end) == 92, "qk_wire_plant_slow.version_end");

/* The inertial sensor's FIFO: written by the plant model. */
struct qk_wire_plant_motion {
	uint32_t write_index; /* Free running; raised after the slot index % 512 is written. */
	uint32_t period_ns; /* ns; From one sample to the next; 0 while the sensor is off. */
} __attribute__((packed));
_Static_assert(sizeof(struct qk_wire_plant_motion) == 8, "qk_wire_plant_motion");
_Static_assert(offsetof(struct qk_wire_plant_motion, write_index) == 0, "qk_wire_plant_motion.write_index");
_Static_assert(offsetof(struct qk_wire_plant_motion, period_ns) == 4, "qk_wire_plant_motion.period_ns");

/* One sample of the inertial sensor, x y z in the axes of the frame: right, up, back. */
struct qk_wire_plant_inertial {
	uint64_t time_us; /* us; Plant time. */
	int16_t accel_mg[3]; /* mg */
	int16_t gyro_ddps[3]; /* 0.1 dps */
} __attribute__((packed));
_Static_assert(sizeof(struct qk_wire_plant_inertial) == 20, "qk_wire_plant_inertial");
_Static_assert(offsetof(struct qk_wire_plant_inertial, time_us) == 0, "qk_wire_plant_inertial.time_us");
_Static_assert(offsetof(struct qk_wire_plant_inertial, accel_mg) == 8, "qk_wire_plant_inertial.accel_mg");
_Static_assert(offsetof(struct qk_wire_plant_inertial, gyro_ddps) == 14, "qk_wire_plant_inertial.gyro_ddps");

#endif /* QK_PLANT_H */
