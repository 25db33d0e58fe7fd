/* Generated from protocols/power.toml, protocols/stream.toml, protocols/thermal.toml by `make gen`. Do not edit. */
/* SPDX-License-Identifier: Apache-2.0 */
/* clang-format off */
#ifndef QK_TELEMETRY_H
#define QK_TELEMETRY_H

#include <stddef.h>
#include <stdint.h>

#define QK_TELEMETRY_LAYOUT_HASH 0xe4cfu

enum qk_supply_state {
	QK_SUPPLY_STATE_NONE = 0,
	QK_SUPPLY_STATE_LEFT_ONLY = 1,
	QK_SUPPLY_STATE_RIGHT_ONLY = 2,
	QK_SUPPLY_STATE_BOTH = 3,
};

enum qk_chip {
	QK_CHIP_RTOS = 1,
	QK_CHIP_AR1 = 2,
};

enum qk_reset_reason {
	QK_RESET_REASON_POWER_ON = 0,
	QK_RESET_REASON_SOFTWARE = 1,
	QK_RESET_REASON_WATCHDOG = 2,
	QK_RESET_REASON_FAULT = 3,
	QK_RESET_REASON_BROWNOUT = 4,
	QK_RESET_REASON_EXTERNAL = 5,
};

enum qk_image_state {
	QK_IMAGE_STATE_CONFIRMED = 0,
	QK_IMAGE_STATE_TRIAL = 1,
	QK_IMAGE_STATE_FALLBACK = 2,
};

enum qk_rollback_reason {
	QK_ROLLBACK_REASON_NONE = 0,
	QK_ROLLBACK_REASON_NOT_CONFIRMED = 1,
	QK_ROLLBACK_REASON_FAULT = 2,
	QK_ROLLBACK_REASON_WATCHDOG = 3,
	QK_ROLLBACK_REASON_BAD_IMAGE = 4,
	QK_ROLLBACK_REASON_CONFIRMED_IMAGE_LOST = 5,
};

enum qk_event_code {
	QK_EVENT_CODE_BOOT = 1,
	QK_EVENT_CODE_PACK_REMOVED = 2,
	QK_EVENT_CODE_PACK_INSERTED = 3,
	QK_EVENT_CODE_TAKEOVER = 4,
	QK_EVENT_CODE_UNDERVOLTAGE = 5,
	QK_EVENT_CODE_THROTTLE_CHANGED = 6,
	QK_EVENT_CODE_SAMPLES_LOST = 7,
	QK_EVENT_CODE_SELFTEST_FAILED = 8,
	QK_EVENT_CODE_IMAGE_CONFIRMED = 9,
	QK_EVENT_CODE_PACK_REJECTED = 10,
};

enum qk_log_level {
	QK_LOG_LEVEL_ERROR = 0,
	QK_LOG_LEVEL_WARNING = 1,
	QK_LOG_LEVEL_INFO = 2,
	QK_LOG_LEVEL_DEBUG = 3,
};

enum qk_fault_kind {
	QK_FAULT_KIND_NONE = 0,
	QK_FAULT_KIND_HARD = 1,
	QK_FAULT_KIND_MEMORY = 2,
	QK_FAULT_KIND_BUS = 3,
	QK_FAULT_KIND_USAGE = 4,
	QK_FAULT_KIND_STACK_OVERFLOW = 5,
	QK_FAULT_KIND_WATCHDOG = 6,
	QK_FAULT_KIND_ASSERTION = 7,
};

enum qk_thermal_zone {
	QK_THERMAL_ZONE_AR1 = 0,
	QK_THERMAL_ZONE_RTOS = 1,
	QK_THERMAL_ZONE_BATTERY_LEFT = 2,
	QK_THERMAL_ZONE_BATTERY_RIGHT = 3,
	QK_THERMAL_ZONE_SKIN = 4,
	QK_THERMAL_ZONE_NONE = 255,
};

#define QK_WIRE_POWER_TYPE 0x10u
/* The bus, 10 Hz. */
struct qk_wire_power {
	uint16_t bus_mv; /* mV */
	uint16_t bus_mv_min; /* mV; Lowest value since the frame named in bus_mv_min_since_seq, held by hardware between samples. */
	uint16_t bus_mv_min_since_seq; /* Sequence number of the power frame at which the latch was last cleared. */
	int16_t load_ma; /* mA; Sum of both packs; positive discharges. */
	uint8_t supply_state;
	uint8_t undervoltage_count; /* Times the bus went below the warning level since reset. */
	uint32_t sample_count; /* Converter samples consumed since reset. */
	uint32_t sample_lost_count; /* Converter samples overwritten before they were read. */
} __attribute__((packed));
_Static_assert(sizeof(struct qk_wire_power) == 18, "qk_wire_power");
_Static_assert(offsetof(struct qk_wire_power, bus_mv) == 0, "qk_wire_power.bus_mv");
_Static_assert(offsetof(struct qk_wire_power, bus_mv_min) == 2, "qk_wire_power.bus_mv_min");
_Static_assert(offsetof(struct qk_wire_power, bus_mv_min_since_seq) == 4, "qk_wire_power.bus_mv_min_since_seq");
_Static_assert(offsetof(struct qk_wire_power, load_ma) == 6, "qk_wire_power.load_ma");
_Static_assert(offsetof(struct qk_wire_power, supply_state) == 8, "qk_wire_power.supply_state");
_Static_assert(offsetof(struct qk_wire_power, undervoltage_count) == 9, "qk_wire_power.undervoltage_count");
_Static_assert(offsetof(struct qk_wire_power, sample_count) == 10, "qk_wire_power.sample_count");
_Static_assert(offsetof(struct qk_wire_power, sample_lost_count) == 14, "qk_wire_power.sample_lost_count");

#define QK_WIRE_BATTERY_TYPE 0x11u
#define QK_BATTERY_PACK_STATE_LEFT_PRESENT 0x1u
#define QK_BATTERY_PACK_STATE_RIGHT_PRESENT 0x2u
#define QK_BATTERY_PACK_STATE_LEFT_AUTHENTIC 0x4u
#define QK_BATTERY_PACK_STATE_RIGHT_AUTHENTIC 0x8u
#define QK_BATTERY_PACK_STATE_LEFT_ENABLED 0x10u
#define QK_BATTERY_PACK_STATE_RIGHT_ENABLED 0x20u
/* Both packs, 10 Hz. Index 0 is the left temple, 1 the right. */
struct qk_wire_battery {
	uint16_t pack_mv[2]; /* mV */
	int16_t pack_ma[2]; /* mA; Positive discharges. */
	int16_t pack_temp_decic[2]; /* 0.1 degC */
	uint8_t pack_soc_pct[2]; /* % */
	uint16_t swap_count[2]; /* Insertions since reset. */
	uint8_t pack_state;
} __attribute__((packed));
_Static_assert(sizeof(struct qk_wire_battery) == 19, "qk_wire_battery");
_Static_assert(offsetof(struct qk_wire_battery, pack_mv) == 0, "qk_wire_battery.pack_mv");
_Static_assert(offsetof(struct qk_wire_battery, pack_ma) == 4, "qk_wire_battery.pack_ma");
_Static_assert(offsetof(struct qk_wire_battery, pack_temp_decic) == 8, "qk_wire_battery.pack_temp_decic");
_Static_assert(offsetof(struct qk_wire_battery, pack_soc_pct) == 12, "qk_wire_battery.pack_soc_pct");
_Static_assert(offsetof(struct qk_wire_battery, swap_count) == 14, "qk_wire_battery.swap_count");
_Static_assert(offsetof(struct qk_wire_battery, pack_state) == 18, "qk_wire_battery.pack_state");

/* In front of every payload. */
struct qk_wire_frame_header {
	uint8_t type; /* Message type. */
	uint8_t flags; /* Reserved, 0. */
	uint16_t seq; /* Counts frames of this stream, wraps; a frame that was dropped before sending has used its number. */
	uint64_t time_us; /* us; Device time since its reset. */
} __attribute__((packed));
_Static_assert(sizeof(struct qk_wire_frame_header) == 12, "qk_wire_frame_header");
_Static_assert(offsetof(struct qk_wire_frame_header, type) == 0, "qk_wire_frame_header.type");
_Static_assert(offsetof(struct qk_wire_frame_header, flags) == 1, "qk_wire_frame_header.flags");
_Static_assert(offsetof(struct qk_wire_frame_header, seq) == 2, "qk_wire_frame_header.seq");
_Static_assert(offsetof(struct qk_wire_frame_header, time_us) == 4, "qk_wire_frame_header.time_us");

#define QK_WIRE_HELLO_TYPE 0x01u
/* Opens a stream and repeats every second. Its CRC is not seeded. */
struct qk_wire_hello {
	uint16_t layout_hash; /* Of all messages; seeds the CRC of every other frame. */
	uint8_t protocol_version;
	uint8_t chip;
	uint32_t boot_id; /* Random at each start. */
	uint32_t boot_count; /* Resets since power was applied. */
	uint8_t build_id[8]; /* First bytes of the linker's build id; the same in the ELF. */
	char board[16];
	char serial[16];
	uint8_t version_major;
	uint8_t version_minor;
	uint16_t version_revision;
	uint32_t version_build;
	uint8_t slot; /* 0 is A, 1 is B. */
	uint8_t image_state;
	uint8_t reset_reason;
	uint8_t rollback_reason; /* Why the last trial ended, if it did. */
	uint8_t selftest_count;
	uint8_t selftest_passed;
	uint32_t uptime_ms; /* ms */
	uint32_t dropped_count; /* Frames dropped since reset because nobody read fast enough. */
	uint32_t yielded_count; /* Frames held back since reset while a command exchange had the line. */
} __attribute__((packed));
_Static_assert(sizeof(struct qk_wire_hello) == 78, "qk_wire_hello");
_Static_assert(offsetof(struct qk_wire_hello, layout_hash) == 0, "qk_wire_hello.layout_hash");
_Static_assert(offsetof(struct qk_wire_hello, protocol_version) == 2, "qk_wire_hello.protocol_version");
_Static_assert(offsetof(struct qk_wire_hello, chip) == 3, "qk_wire_hello.chip");
_Static_assert(offsetof(struct qk_wire_hello, boot_id) == 4, "qk_wire_hello.boot_id");
_Static_assert(offsetof(struct qk_wire_hello, boot_count) == 8, "qk_wire_hello.boot_count");
_Static_assert(offsetof(struct qk_wire_hello, build_id) == 12, "qk_wire_hello.build_id");
_Static_assert(offsetof(struct qk_wire_hello, board) == 20, "qk_wire_hello.board");
_Static_assert(offsetof(struct qk_wire_hello, serial) == 36, "qk_wire_hello.serial");
_Static_assert(offsetof(struct qk_wire_hello, version_major) == 52, "qk_wire_hello.version_major");
_Static_assert(offsetof(struct qk_wire_hello, version_minor) == 53, "qk_wire_hello.version_minor");
_Static_assert(offsetof(struct qk_wire_hello, version_revision) == 54, "qk_wire_hello.version_revision");
_Static_assert(offsetof(struct qk_wire_hello, version_build) == 56, "qk_wire_hello.version_build");
_Static_assert(offsetof(struct qk_wire_hello, slot) == 60, "qk_wire_hello.slot");
_Static_assert(offsetof(struct qk_wire_hello, image_state) == 61, "qk_wire_hello.image_state");
_Static_assert(offsetof(struct qk_wire_hello, reset_reason) == 62, "qk_wire_hello.reset_reason");
_Static_assert(offsetof(struct qk_wire_hello, rollback_reason) == 63, "qk_wire_hello.rollback_reason");
_Static_assert(offsetof(struct qk_wire_hello, selftest_count) == 64, "qk_wire_hello.selftest_count");
_Static_assert(offsetof(struct qk_wire_hello, selftest_passed) == 65, "qk_wire_hello.selftest_passed");
_Static_assert(offsetof(struct qk_wire_hello, uptime_ms) == 66, "qk_wire_hello.uptime_ms");
_Static_assert(offsetof(struct qk_wire_hello, dropped_count) == 70, "qk_wire_hello.dropped_count");
_Static_assert(offsetof(struct qk_wire_hello, yielded_count) == 74, "qk_wire_hello.yielded_count");

#define QK_WIRE_EVENT_TYPE 0x02u
/* Something happened once. */
struct qk_wire_event {
	uint16_t code;
	int32_t value[3]; /* By code: pack index for pack_* (0 left, 1 right), then plant time in us; level and zone for throttle_changed; count for samples_lost. */
} __attribute__((packed));
_Static_assert(sizeof(struct qk_wire_event) == 14, "qk_wire_event");
_Static_assert(offsetof(struct qk_wire_event, code) == 0, "qk_wire_event.code");
_Static_assert(offsetof(struct qk_wire_event, value) == 2, "qk_wire_event.value");

#define QK_WIRE_LOG_TYPE 0x03u
/* One line of text. */
struct qk_wire_log {
	uint8_t level;
	char text[72];
} __attribute__((packed));
_Static_assert(sizeof(struct qk_wire_log) == 73, "qk_wire_log");
_Static_assert(offsetof(struct qk_wire_log, level) == 0, "qk_wire_log.level");
_Static_assert(offsetof(struct qk_wire_log, text) == 1, "qk_wire_log.text");

#define QK_WIRE_FAULT_TYPE 0x04u
/* Crash record, kept in retained memory over the reset; sent once after the restart and readable by command. */
struct qk_wire_fault {
	uint8_t kind;
	uint8_t slot;
	uint8_t version_major;
	uint8_t version_minor;
	uint16_t version_revision;
	char thread[16];
	uint32_t pc; /* 0 where the processor could not store it. */
	uint32_t lr;
	uint32_t sp;
	uint32_t psr;
	uint32_t cfsr;
	uint32_t hfsr;
	uint32_t mmfar;
	uint32_t bfar;
	uint32_t uptime_ms; /* ms */
	uint32_t boot_id;
	uint8_t build_id[8];
} __attribute__((packed));
_Static_assert(sizeof(struct qk_wire_fault) == 70, "qk_wire_fault");
_Static_assert(offsetof(struct qk_wire_fault, kind) == 0, "qk_wire_fault.kind");
_Static_assert(offsetof(struct qk_wire_fault, slot) == 1, "qk_wire_fault.slot");
_Static_assert(offsetof(struct qk_wire_fault, version_major) == 2, "qk_wire_fault.version_major");
_Static_assert(offsetof(struct qk_wire_fault, version_minor) == 3, "qk_wire_fault.version_minor");
_Static_assert(offsetof(struct qk_wire_fault, version_revision) == 4, "qk_wire_fault.version_revision");
_Static_assert(offsetof(struct qk_wire_fault, thread) == 6, "qk_wire_fault.thread");
_Static_assert(offsetof(struct qk_wire_fault, pc) == 22, "qk_wire_fault.pc");
_Static_assert(offsetof(struct qk_wire_fault, lr) == 26, "qk_wire_fault.lr");
_Static_assert(offsetof(struct qk_wire_fault, sp) == 30, "qk_wire_fault.sp");
_Static_assert(offsetof(struct qk_wire_fault, psr) == 34, "qk_wire_fault.psr");
_Static_assert(offsetof(struct qk_wire_fault, cfsr) == 38, "qk_wire_fault.cfsr");
_Static_assert(offsetof(struct qk_wire_fault, hfsr) == 42, "qk_wire_fault.hfsr");
_Static_assert(offsetof(struct qk_wire_fault, mmfar) == 46, "qk_wire_fault.mmfar");
_Static_assert(offsetof(struct qk_wire_fault, bfar) == 50, "qk_wire_fault.bfar");
_Static_assert(offsetof(struct qk_wire_fault, uptime_ms) == 54, "qk_wire_fault.uptime_ms");
_Static_assert(offsetof(struct qk_wire_fault, boot_id) == 58, "qk_wire_fault.boot_id");
_Static_assert(offsetof(struct qk_wire_fault, build_id) == 62, "qk_wire_fault.build_id");

#define QK_WIRE_THERMAL_TYPE 0x20u
/* All zones, 2 Hz. */
struct qk_wire_thermal {
	int16_t zone_decic[5]; /* 0.1 degC; Indexed by thermal_zone. */
	uint8_t throttle_level; /* 0 is full speed, 3 is the AR1 asleep. */
	uint8_t throttle_zone; /* The zone that asked for the level. */
	uint16_t throttle_changes; /* Level changes since reset. */
} __attribute__((packed));
_Static_assert(sizeof(struct qk_wire_thermal) == 14, "qk_wire_thermal");
_Static_assert(offsetof(struct qk_wire_thermal, zone_decic) == 0, "qk_wire_thermal.zone_decic");
_Static_assert(offsetof(struct qk_wire_thermal, throttle_level) == 10, "qk_wire_thermal.throttle_level");
_Static_assert(offsetof(struct qk_wire_thermal, throttle_zone) == 11, "qk_wire_thermal.throttle_zone");
_Static_assert(offsetof(struct qk_wire_thermal, throttle_changes) == 12, "qk_wire_thermal.throttle_changes");

#endif /* QK_TELEMETRY_H */
