/* Generated from protocols/plant.toml by `make gen`. Do not edit. */
/* SPDX-License-Identifier: Apache-2.0 */
/* clang-format off */
#ifndef QK_PLANT_H
#define QK_PLANT_H

#include <stddef.h>
#include <stdint.h>

#define QK_PLANT_LAYOUT_HASH 0x7b3au

/* Written by the plant model. */
struct qk_wire_plant_control {
	uint32_t write_index; /* Free running; raised after the slot index % 1024 is written. */
	uint32_t layout_hash; /* Of this message set; the firmware refuses another. */
	uint32_t entropy[2]; /* Stand-in for a random number generator. */
	char serial[16]; /* Stand-in for the serial number in fuses. */
	uint32_t ar1_version; /* Stand-in for what the AR1 tells at its start: major << 24 | minor << 16 | revision; 0 while it has said nothing. */
	uint32_t reset_cause; /* Stand-in for the power chip's register: a reset_reason, or 0xffffffff when it has nothing to say. The firmware clears it. */
} __attribute__((packed));
_Static_assert(sizeof(struct qk_wire_plant_control) == 40, "qk_wire_plant_control");
_Static_assert(offsetof(struct qk_wire_plant_control, write_index) == 0, "qk_wire_plant_control.write_index");
_Static_assert(offsetof(struct qk_wire_plant_control, layout_hash) == 4, "qk_wire_plant_control.layout_hash");
_Static_assert(offsetof(struct qk_wire_plant_control, entropy) == 8, "qk_wire_plant_control.entropy");
_Static_assert(offsetof(struct qk_wire_plant_control, serial) == 16, "qk_wire_plant_control.serial");
_Static_assert(offsetof(struct qk_wire_plant_control, ar1_version) == 32, "qk_wire_plant_control.ar1_version");
_Static_assert(offsetof(struct qk_wire_plant_control, reset_cause) == 36, "qk_wire_plant_control.reset_cause");

/* Written by the firmware. */
struct qk_wire_plant_status {
	uint32_t read_index;
	uint32_t heartbeat; /* Counts sampling rounds. */
	uint8_t throttle_level;
	uint8_t pack_enable; /* Bit 0 left, bit 1 right. */
	uint16_t reserved;
} __attribute__((packed));
_Static_assert(sizeof(struct qk_wire_plant_status) == 12, "qk_wire_plant_status");
_Static_assert(offsetof(struct qk_wire_plant_status, read_index) == 0, "qk_wire_plant_status.read_index");
_Static_assert(offsetof(struct qk_wire_plant_status, heartbeat) == 4, "qk_wire_plant_status.heartbeat");
_Static_assert(offsetof(struct qk_wire_plant_status, throttle_level) == 8, "qk_wire_plant_status.throttle_level");
_Static_assert(offsetof(struct qk_wire_plant_status, pack_enable) == 9, "qk_wire_plant_status.pack_enable");
_Static_assert(offsetof(struct qk_wire_plant_status, reserved) == 10, "qk_wire_plant_status.reserved");

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
} __attribute__((packed));
_Static_assert(sizeof(struct qk_wire_plant_sample) == 32, "qk_wire_plant_sample");
_Static_assert(offsetof(struct qk_wire_plant_sample, time_us) == 0, "qk_wire_plant_sample.time_us");
_Static_assert(offsetof(struct qk_wire_plant_sample, pack_mv) == 8, "qk_wire_plant_sample.pack_mv");
_Static_assert(offsetof(struct qk_wire_plant_sample, pack_ma) == 12, "qk_wire_plant_sample.pack_ma");
_Static_assert(offsetof(struct qk_wire_plant_sample, bus_mv) == 16, "qk_wire_plant_sample.bus_mv");
_Static_assert(offsetof(struct qk_wire_plant_sample, bus_mv_min) == 18, "qk_wire_plant_sample.bus_mv_min");
_Static_assert(offsetof(struct qk_wire_plant_sample, zone_decic) == 20, "qk_wire_plant_sample.zone_decic");
_Static_assert(offsetof(struct qk_wire_plant_sample, present) == 30, "qk_wire_plant_sample.present");
_Static_assert(offsetof(struct qk_wire_plant_sample, authentic) == 31, "qk_wire_plant_sample.authentic");

#endif /* QK_PLANT_H */
