/* Generated from protocols/ar1.toml, protocols/link.toml, protocols/motion.toml, protocols/power.toml, protocols/stream.toml, protocols/thermal.toml by `make gen`. Do not edit. */
/* SPDX-License-Identifier: Apache-2.0 */
/* clang-format off */
#ifndef QK_TELEMETRY_H
#define QK_TELEMETRY_H

#include <stddef.h>
#include <stdint.h>

#define QK_TELEMETRY_LAYOUT_HASH 0x88aau

enum qk_ar1_zone {
	QK_AR1_ZONE_CPU = 0,
	QK_AR1_ZONE_NPU = 1,
	QK_AR1_ZONE_CAMERA = 2,
	QK_AR1_ZONE_SKIN = 3,
};

enum qk_ar1_boot_state {
	QK_AR1_BOOT_STATE_UNKNOWN = 0,
	QK_AR1_BOOT_STATE_GREEN = 1,
	QK_AR1_BOOT_STATE_YELLOW = 2,
	QK_AR1_BOOT_STATE_ORANGE = 3,
	QK_AR1_BOOT_STATE_RED = 4,
};

enum qk_ar1_verity_state {
	QK_AR1_VERITY_STATE_NONE = 0,
	QK_AR1_VERITY_STATE_WHOLE = 1,
	QK_AR1_VERITY_STATE_CORRECTED = 2,
	QK_AR1_VERITY_STATE_FAILED = 3,
};

enum qk_ar1_action {
	QK_AR1_ACTION_NONE = 0,
	QK_AR1_ACTION_CONFIRM = 1,
	QK_AR1_ACTION_TRIAL = 2,
	QK_AR1_ACTION_UNTRIAL = 3,
	QK_AR1_ACTION_REBOOT = 4,
	QK_AR1_ACTION_REBOOT_BOOTLOADER = 5,
	QK_AR1_ACTION_REBOOT_FASTBOOTD = 6,
	QK_AR1_ACTION_REBOOT_EDL = 7,
	QK_AR1_ACTION_POWER_OFF = 8,
	QK_AR1_ACTION_VERIFY = 9,
};

enum qk_pack {
	QK_PACK_LEFT = 0,
	QK_PACK_RIGHT = 1,
};

enum qk_supply_state {
	QK_SUPPLY_STATE_NONE = 0,
	QK_SUPPLY_STATE_LEFT_ONLY = 1,
	QK_SUPPLY_STATE_RIGHT_ONLY = 2,
	QK_SUPPLY_STATE_BOTH = 3,
};

enum qk_charger_state {
	QK_CHARGER_STATE_ABSENT = 0,
	QK_CHARGER_STATE_HOLDING = 1,
	QK_CHARGER_STATE_CHARGING = 2,
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

#define QK_WIRE_AR1_LOAD_TYPE 0x50u
/* How busy the AR1 is, 1 Hz. */
struct qk_wire_ar1_load {
	uint16_t cpu_permille; /* 0.1 %; Share of all processors that was not idle since the last message. */
	uint16_t runnable; /* Tasks that run or want to. */
	uint32_t memory_total_kib; /* KiB */
	uint32_t memory_free_kib; /* KiB; Available without swapping. */
} __attribute__((packed));
_Static_assert(sizeof(struct qk_wire_ar1_load) == 12, "qk_wire_ar1_load");
_Static_assert(offsetof(struct qk_wire_ar1_load, cpu_permille) == 0, "qk_wire_ar1_load.cpu_permille");
_Static_assert(offsetof(struct qk_wire_ar1_load, runnable) == 2, "qk_wire_ar1_load.runnable");
_Static_assert(offsetof(struct qk_wire_ar1_load, memory_total_kib) == 4, "qk_wire_ar1_load.memory_total_kib");
_Static_assert(offsetof(struct qk_wire_ar1_load, memory_free_kib) == 8, "qk_wire_ar1_load.memory_free_kib");

#define QK_WIRE_AR1_THERMAL_TYPE 0x51u
/* Thermal zones of the AR1, 1 Hz. */
struct qk_wire_ar1_thermal {
	int16_t zone_decic[4]; /* 0.1 degC; Indexed by ar1_zone; -32768 where there is no sensor. */
} __attribute__((packed));
_Static_assert(sizeof(struct qk_wire_ar1_thermal) == 8, "qk_wire_ar1_thermal");
_Static_assert(offsetof(struct qk_wire_ar1_thermal, zone_decic) == 0, "qk_wire_ar1_thermal.zone_decic");

#define QK_WIRE_AR1_SYSTEM_TYPE 0x54u
/* The running system and both slots, 1 Hz. Arrays: slot a, slot b. */
struct qk_wire_ar1_system {
	uint8_t slot; /* That runs: 0 is A, 1 is B. */
	uint8_t boot_state; /* As Android names it. */
	uint8_t locked; /* 1: the boot loader starts only what verifies. */
	uint8_t verity_state; /* Of all partitions with a hash tree, when they were read last. */
	uint32_t verity_failed_blocks; /* Neither whole nor corrected, when they were read last. */
	uint32_t verity_corrected_errors; /* Since the start, as the kernel counts them. */
	uint8_t slot_state[2]; /* GPT attribute bits 48 to 55: priority 2 bits, active, retry count 3 bits, successful, unbootable. */
	uint32_t slot_version[2]; /* Property quark.version of its vbmeta structure: major << 24 | minor << 16 | revision; 0 without one. */
	uint64_t rollback_index[2]; /* Of its vbmeta structure. */
	uint8_t vbmeta_a_digest[8]; /* First bytes of SHA-256 over the vbmeta structure in slot a; zeros where there is none. */
	uint8_t vbmeta_b_digest[8];
} __attribute__((packed));
_Static_assert(sizeof(struct qk_wire_ar1_system) == 54, "qk_wire_ar1_system");
_Static_assert(offsetof(struct qk_wire_ar1_system, slot) == 0, "qk_wire_ar1_system.slot");
_Static_assert(offsetof(struct qk_wire_ar1_system, boot_state) == 1, "qk_wire_ar1_system.boot_state");
_Static_assert(offsetof(struct qk_wire_ar1_system, locked) == 2, "qk_wire_ar1_system.locked");
_Static_assert(offsetof(struct qk_wire_ar1_system, verity_state) == 3, "qk_wire_ar1_system.verity_state");
_Static_assert(offsetof(struct qk_wire_ar1_system, verity_failed_blocks) == 4, "qk_wire_ar1_system.verity_failed_blocks");
_Static_assert(offsetof(struct qk_wire_ar1_system, verity_corrected_errors) == 8, "qk_wire_ar1_system.verity_corrected_errors");
_Static_assert(offsetof(struct qk_wire_ar1_system, slot_state) == 12, "qk_wire_ar1_system.slot_state");
_Static_assert(offsetof(struct qk_wire_ar1_system, slot_version) == 14, "qk_wire_ar1_system.slot_version");
_Static_assert(offsetof(struct qk_wire_ar1_system, rollback_index) == 22, "qk_wire_ar1_system.rollback_index");
_Static_assert(offsetof(struct qk_wire_ar1_system, vbmeta_a_digest) == 38, "qk_wire_ar1_system.vbmeta_a_digest");
_Static_assert(offsetof(struct qk_wire_ar1_system, vbmeta_b_digest) == 46, "qk_wire_ar1_system.vbmeta_b_digest");

#define QK_WIRE_AR1_REQUEST_TYPE 0x55u
/* To the system. Repeated with the same nonce until it is answered; carried out once. */
struct qk_wire_ar1_request {
	uint8_t action;
	uint32_t nonce; /* Not 0; another one for each request. */
} __attribute__((packed));
_Static_assert(sizeof(struct qk_wire_ar1_request) == 5, "qk_wire_ar1_request");
_Static_assert(offsetof(struct qk_wire_ar1_request, action) == 0, "qk_wire_ar1_request.action");
_Static_assert(offsetof(struct qk_wire_ar1_request, nonce) == 1, "qk_wire_ar1_request.nonce");

#define QK_WIRE_AR1_VERITY_TYPE 0x52u
/* A partition was mapped through dm-verity and read whole. */
struct qk_wire_ar1_verity {
	char partition[20];
	uint8_t root_digest[8]; /* First bytes of the root digest in the vbmeta structure. */
	uint32_t blocks; /* Blocks of 4096 bytes that were read. */
	uint32_t failed_blocks; /* Blocks that could not be read: neither whole nor corrected. */
	uint32_t corrected_errors; /* Errors that the Reed-Solomon codes corrected, as the kernel counts them. */
	uint8_t error; /* errno of what kept the partition from being mapped, or a block from being read (5, EIO, is dm-verity's refusal); 0 if nothing did. */
} __attribute__((packed));
_Static_assert(sizeof(struct qk_wire_ar1_verity) == 41, "qk_wire_ar1_verity");
_Static_assert(offsetof(struct qk_wire_ar1_verity, partition) == 0, "qk_wire_ar1_verity.partition");
_Static_assert(offsetof(struct qk_wire_ar1_verity, root_digest) == 20, "qk_wire_ar1_verity.root_digest");
_Static_assert(offsetof(struct qk_wire_ar1_verity, blocks) == 28, "qk_wire_ar1_verity.blocks");
_Static_assert(offsetof(struct qk_wire_ar1_verity, failed_blocks) == 32, "qk_wire_ar1_verity.failed_blocks");
_Static_assert(offsetof(struct qk_wire_ar1_verity, corrected_errors) == 36, "qk_wire_ar1_verity.corrected_errors");
_Static_assert(offsetof(struct qk_wire_ar1_verity, error) == 40, "qk_wire_ar1_verity.error");

#define QK_WIRE_AR1_ANSWER_TYPE 0x56u
/* A request was carried out, and lies on the storage, or was refused. */
struct qk_wire_ar1_answer {
	uint8_t action;
	uint8_t error; /* errno; 0 for done. */
	uint32_t nonce; /* Of the request. */
} __attribute__((packed));
_Static_assert(sizeof(struct qk_wire_ar1_answer) == 6, "qk_wire_ar1_answer");
_Static_assert(offsetof(struct qk_wire_ar1_answer, action) == 0, "qk_wire_ar1_answer.action");
_Static_assert(offsetof(struct qk_wire_ar1_answer, error) == 1, "qk_wire_ar1_answer.error");
_Static_assert(offsetof(struct qk_wire_ar1_answer, nonce) == 2, "qk_wire_ar1_answer.nonce");

#define QK_WIRE_AR1_LINK_TYPE 0x40u
/* Requests to the AR1, 1 Hz. What is latched holds the longest since the report before. */
struct qk_wire_ar1_link {
	uint32_t sent_count; /* Requests since reset. */
	uint32_t lost_count; /* Of those, not answered in time. */
	uint32_t latency_us_max; /* us; Latched: from a request to its answer; 0 without one. */
	uint32_t wake_us_max; /* us; Latched: from the wake line to the first answer; 0 without one. */
	uint32_t hand_over_us_max; /* us; Latched: from one chip's release of a job to the other's first act; 0 without one. */
	uint32_t ar1_version; /* What the AR1 said that it runs: major << 24 | minor << 16 | revision; 0 while it has said nothing. */
} __attribute__((packed));
_Static_assert(sizeof(struct qk_wire_ar1_link) == 24, "qk_wire_ar1_link");
_Static_assert(offsetof(struct qk_wire_ar1_link, sent_count) == 0, "qk_wire_ar1_link.sent_count");
_Static_assert(offsetof(struct qk_wire_ar1_link, lost_count) == 4, "qk_wire_ar1_link.lost_count");
_Static_assert(offsetof(struct qk_wire_ar1_link, latency_us_max) == 8, "qk_wire_ar1_link.latency_us_max");
_Static_assert(offsetof(struct qk_wire_ar1_link, wake_us_max) == 12, "qk_wire_ar1_link.wake_us_max");
_Static_assert(offsetof(struct qk_wire_ar1_link, hand_over_us_max) == 16, "qk_wire_ar1_link.hand_over_us_max");
_Static_assert(offsetof(struct qk_wire_ar1_link, ar1_version) == 20, "qk_wire_ar1_link.ar1_version");

#define QK_WIRE_DISPLAY_TYPE 0x41u
/* Frames of all displays, 1 Hz, counted at their sync lines; not sent by products without displays. */
struct qk_wire_display {
	uint32_t frame_count; /* Since reset. */
	uint32_t dropped_count; /* Sync pulses that never came, since reset. */
} __attribute__((packed));
_Static_assert(sizeof(struct qk_wire_display) == 8, "qk_wire_display");
_Static_assert(offsetof(struct qk_wire_display, frame_count) == 0, "qk_wire_display.frame_count");
_Static_assert(offsetof(struct qk_wire_display, dropped_count) == 4, "qk_wire_display.dropped_count");

#define QK_WIRE_LINK_REQUEST_TYPE 0x42u
/* From the microcontroller, 20 Hz. */
struct qk_wire_link_request {
	uint32_t nonce; /* Comes back in the answer. */
	int16_t zone_decic[4]; /* 0.1 degC; What the AR1's zones are, where they have no sensor of their own; indexed by ar1_zone, -32768 for unknown. */
} __attribute__((packed));
_Static_assert(sizeof(struct qk_wire_link_request) == 12, "qk_wire_link_request");
_Static_assert(offsetof(struct qk_wire_link_request, nonce) == 0, "qk_wire_link_request.nonce");
_Static_assert(offsetof(struct qk_wire_link_request, zone_decic) == 4, "qk_wire_link_request.zone_decic");

#define QK_WIRE_LINK_ANSWER_TYPE 0x43u
/* From the AR1, at once. */
struct qk_wire_link_answer {
	uint32_t nonce;
	uint32_t version; /* What runs: major << 24 | minor << 16 | revision. */
	uint8_t slot; /* 0 is A, 1 is B. */
	uint8_t healthy; /* 1: every self-test holds. */
} __attribute__((packed));
_Static_assert(sizeof(struct qk_wire_link_answer) == 10, "qk_wire_link_answer");
_Static_assert(offsetof(struct qk_wire_link_answer, nonce) == 0, "qk_wire_link_answer.nonce");
_Static_assert(offsetof(struct qk_wire_link_answer, version) == 4, "qk_wire_link_answer.version");
_Static_assert(offsetof(struct qk_wire_link_answer, slot) == 8, "qk_wire_link_answer.slot");
_Static_assert(offsetof(struct qk_wire_link_answer, healthy) == 9, "qk_wire_link_answer.healthy");

#define QK_WIRE_CAMERA_TYPE 0x44u
/* Frames of the camera, 1 Hz, counted at its sync line. */
struct qk_wire_camera {
	uint32_t camera_frame_count; /* Since reset. */
	uint32_t camera_dropped_count; /* Sync pulses that never came while it ran, since reset. */
} __attribute__((packed));
_Static_assert(sizeof(struct qk_wire_camera) == 8, "qk_wire_camera");
_Static_assert(offsetof(struct qk_wire_camera, camera_frame_count) == 0, "qk_wire_camera.camera_frame_count");
_Static_assert(offsetof(struct qk_wire_camera, camera_dropped_count) == 4, "qk_wire_camera.camera_dropped_count");

#define QK_WIRE_IMU_TYPE 0x30u
#define QK_WIRE_IMU_SAMPLES 16u
/* Accelerometer and gyroscope, x y z in the axes of the frame: right, up, back. */
struct qk_wire_imu {
	uint32_t first_index; /* Samples since reset before the first of this block. */
	uint64_t first_us; /* us; Time of the first sample by the converter's clock. */
	uint32_t period_ns; /* ns; From one sample to the next. */
	uint8_t count; /* Samples that are filled, from the first on; the others are 0. */
	int16_t accel_mg[16][3]; /* mg */
	int16_t gyro_ddps[16][3]; /* 0.1 dps */
} __attribute__((packed));
_Static_assert(sizeof(struct qk_wire_imu) == 209, "qk_wire_imu");
_Static_assert(offsetof(struct qk_wire_imu, first_index) == 0, "qk_wire_imu.first_index");
_Static_assert(offsetof(struct qk_wire_imu, first_us) == 4, "qk_wire_imu.first_us");
_Static_assert(offsetof(struct qk_wire_imu, period_ns) == 12, "qk_wire_imu.period_ns");
_Static_assert(offsetof(struct qk_wire_imu, count) == 16, "qk_wire_imu.count");
_Static_assert(offsetof(struct qk_wire_imu, accel_mg) == 17, "qk_wire_imu.accel_mg");
_Static_assert(offsetof(struct qk_wire_imu, gyro_ddps) == 113, "qk_wire_imu.gyro_ddps");

#define QK_WIRE_POWER_TYPE 0x10u
/* The bus, 10 Hz. */
struct qk_wire_power {
	uint16_t bus_mv; /* mV */
	uint16_t bus_mv_min; /* mV; Latched: lowest value, held by hardware between converter samples. */
	uint16_t bus_mv_max; /* mV; Latched: highest converter sample. */
	int16_t load_ma_max; /* mA; Latched: highest converter sample. */
	uint16_t latched_since_seq; /* Sequence number of the power frame that cleared the latches: they hold what was since then. */
	int16_t load_ma; /* mA; Sum of both packs; positive discharges. */
	uint8_t supply_state;
	uint8_t undervoltage_count; /* Times the bus went below the warning level since reset. */
	uint32_t sample_count; /* Converter samples consumed since reset. */
	uint32_t sample_lost_count; /* Converter samples overwritten before they were read. */
	uint64_t converter_us; /* us; The converter's clock at its last sample: a second clock beside the header's. */
} __attribute__((packed));
_Static_assert(sizeof(struct qk_wire_power) == 30, "qk_wire_power");
_Static_assert(offsetof(struct qk_wire_power, bus_mv) == 0, "qk_wire_power.bus_mv");
_Static_assert(offsetof(struct qk_wire_power, bus_mv_min) == 2, "qk_wire_power.bus_mv_min");
_Static_assert(offsetof(struct qk_wire_power, bus_mv_max) == 4, "qk_wire_power.bus_mv_max");
_Static_assert(offsetof(struct qk_wire_power, load_ma_max) == 6, "qk_wire_power.load_ma_max");
_Static_assert(offsetof(struct qk_wire_power, latched_since_seq) == 8, "qk_wire_power.latched_since_seq");
_Static_assert(offsetof(struct qk_wire_power, load_ma) == 10, "qk_wire_power.load_ma");
_Static_assert(offsetof(struct qk_wire_power, supply_state) == 12, "qk_wire_power.supply_state");
_Static_assert(offsetof(struct qk_wire_power, undervoltage_count) == 13, "qk_wire_power.undervoltage_count");
_Static_assert(offsetof(struct qk_wire_power, sample_count) == 14, "qk_wire_power.sample_count");
_Static_assert(offsetof(struct qk_wire_power, sample_lost_count) == 18, "qk_wire_power.sample_lost_count");
_Static_assert(offsetof(struct qk_wire_power, converter_us) == 22, "qk_wire_power.converter_us");

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
	int16_t pack_ma_min[2]; /* mA; Latched: lowest, held by hardware between converter samples; negative flows into the pack. */
	uint16_t latched_since_seq; /* Sequence number of the battery frame that cleared the latches. */
	int16_t pack_temp_decic[2]; /* 0.1 degC */
	uint8_t pack_soc_pct[2]; /* % */
	uint16_t swap_count[2]; /* Insertions since reset. */
	uint8_t pack_state;
} __attribute__((packed));
_Static_assert(sizeof(struct qk_wire_battery) == 25, "qk_wire_battery");
_Static_assert(offsetof(struct qk_wire_battery, pack_mv) == 0, "qk_wire_battery.pack_mv");
_Static_assert(offsetof(struct qk_wire_battery, pack_ma) == 4, "qk_wire_battery.pack_ma");
_Static_assert(offsetof(struct qk_wire_battery, pack_ma_min) == 8, "qk_wire_battery.pack_ma_min");
_Static_assert(offsetof(struct qk_wire_battery, latched_since_seq) == 12, "qk_wire_battery.latched_since_seq");
_Static_assert(offsetof(struct qk_wire_battery, pack_temp_decic) == 14, "qk_wire_battery.pack_temp_decic");
_Static_assert(offsetof(struct qk_wire_battery, pack_soc_pct) == 18, "qk_wire_battery.pack_soc_pct");
_Static_assert(offsetof(struct qk_wire_battery, swap_count) == 20, "qk_wire_battery.swap_count");
_Static_assert(offsetof(struct qk_wire_battery, pack_state) == 24, "qk_wire_battery.pack_state");

#define QK_WIRE_GAUGE_TYPE 0x1au
/* Registers of both packs' gauges, 1 Hz; 0 for a pack that is absent. */
struct qk_wire_gauge {
	uint8_t gauge_soc_pct[2]; /* %; Register 0x0D. */
	uint16_t remaining_mah[2]; /* mAh; Register 0x0F, in mAh whatever its capacity mode. */
	uint16_t full_mah[2]; /* mAh; Register 0x10. */
	uint16_t design_mah[2]; /* mAh; Register 0x18. */
	uint16_t cycle_count[2]; /* Register 0x17. */
	uint8_t max_error_pct[2]; /* %; Register 0x0C. */
} __attribute__((packed));
_Static_assert(sizeof(struct qk_wire_gauge) == 20, "qk_wire_gauge");
_Static_assert(offsetof(struct qk_wire_gauge, gauge_soc_pct) == 0, "qk_wire_gauge.gauge_soc_pct");
_Static_assert(offsetof(struct qk_wire_gauge, remaining_mah) == 2, "qk_wire_gauge.remaining_mah");
_Static_assert(offsetof(struct qk_wire_gauge, full_mah) == 6, "qk_wire_gauge.full_mah");
_Static_assert(offsetof(struct qk_wire_gauge, design_mah) == 10, "qk_wire_gauge.design_mah");
_Static_assert(offsetof(struct qk_wire_gauge, cycle_count) == 14, "qk_wire_gauge.cycle_count");
_Static_assert(offsetof(struct qk_wire_gauge, max_error_pct) == 18, "qk_wire_gauge.max_error_pct");

#define QK_WIRE_CHARGER_TYPE 0x1cu
/* What feeds the glasses from outside, 1 Hz. */
struct qk_wire_charger {
	uint8_t charger_state;
	uint16_t charge_ma_max; /* mA; Fast current of a pack that the charger is set to. */
} __attribute__((packed));
_Static_assert(sizeof(struct qk_wire_charger) == 3, "qk_wire_charger");
_Static_assert(offsetof(struct qk_wire_charger, charger_state) == 0, "qk_wire_charger.charger_state");
_Static_assert(offsetof(struct qk_wire_charger, charge_ma_max) == 1, "qk_wire_charger.charge_ma_max");

#define QK_WIRE_PACK_REMOVED_TYPE 0x12u
/* A pack lost contact. */
struct qk_wire_pack_removed {
	uint8_t pack;
	uint64_t sample_us; /* us */
} __attribute__((packed));
_Static_assert(sizeof(struct qk_wire_pack_removed) == 9, "qk_wire_pack_removed");
_Static_assert(offsetof(struct qk_wire_pack_removed, pack) == 0, "qk_wire_pack_removed.pack");
_Static_assert(offsetof(struct qk_wire_pack_removed, sample_us) == 1, "qk_wire_pack_removed.sample_us");

#define QK_WIRE_PACK_INSERTED_TYPE 0x13u
/* A pack has had contact for long enough to count. */
struct qk_wire_pack_inserted {
	uint8_t pack;
	uint64_t sample_us; /* us */
	uint16_t inrush_ma; /* mA; Peak held by hardware since the first contact. */
	uint16_t inrush_ma2s; /* mA2s; Integral of the squared current of the insertion, (mA)^2 s, held by hardware since the first contact; 65535 or more. */
} __attribute__((packed));
_Static_assert(sizeof(struct qk_wire_pack_inserted) == 13, "qk_wire_pack_inserted");
_Static_assert(offsetof(struct qk_wire_pack_inserted, pack) == 0, "qk_wire_pack_inserted.pack");
_Static_assert(offsetof(struct qk_wire_pack_inserted, sample_us) == 1, "qk_wire_pack_inserted.sample_us");
_Static_assert(offsetof(struct qk_wire_pack_inserted, inrush_ma) == 9, "qk_wire_pack_inserted.inrush_ma");
_Static_assert(offsetof(struct qk_wire_pack_inserted, inrush_ma2s) == 11, "qk_wire_pack_inserted.inrush_ma2s");

#define QK_WIRE_PACK_REJECTED_TYPE 0x15u
/* A pack is present but did not prove what it is. */
struct qk_wire_pack_rejected {
	uint8_t pack;
	uint64_t sample_us; /* us */
} __attribute__((packed));
_Static_assert(sizeof(struct qk_wire_pack_rejected) == 9, "qk_wire_pack_rejected");
_Static_assert(offsetof(struct qk_wire_pack_rejected, pack) == 0, "qk_wire_pack_rejected.pack");
_Static_assert(offsetof(struct qk_wire_pack_rejected, sample_us) == 1, "qk_wire_pack_rejected.sample_us");

#define QK_WIRE_TAKEOVER_TYPE 0x16u
/* After a removal this pack carries the load alone. */
struct qk_wire_takeover {
	uint8_t pack;
	uint64_t sample_us; /* us */
	uint16_t bus_mv_min; /* mV; Held by hardware since the sample before. */
	uint16_t switch_us; /* us; Capture timer of the power path: from the loss of one pack until the other fed the bus. */
} __attribute__((packed));
_Static_assert(sizeof(struct qk_wire_takeover) == 13, "qk_wire_takeover");
_Static_assert(offsetof(struct qk_wire_takeover, pack) == 0, "qk_wire_takeover.pack");
_Static_assert(offsetof(struct qk_wire_takeover, sample_us) == 1, "qk_wire_takeover.sample_us");
_Static_assert(offsetof(struct qk_wire_takeover, bus_mv_min) == 9, "qk_wire_takeover.bus_mv_min");
_Static_assert(offsetof(struct qk_wire_takeover, switch_us) == 11, "qk_wire_takeover.switch_us");

#define QK_WIRE_UNDERVOLTAGE_TYPE 0x17u
/* The bus went below the warning level. */
struct qk_wire_undervoltage {
	uint64_t sample_us; /* us */
	uint16_t bus_mv_min; /* mV; Held by hardware since the sample before. */
} __attribute__((packed));
_Static_assert(sizeof(struct qk_wire_undervoltage) == 10, "qk_wire_undervoltage");
_Static_assert(offsetof(struct qk_wire_undervoltage, sample_us) == 0, "qk_wire_undervoltage.sample_us");
_Static_assert(offsetof(struct qk_wire_undervoltage, bus_mv_min) == 8, "qk_wire_undervoltage.bus_mv_min");

#define QK_WIRE_SAMPLES_LOST_TYPE 0x18u
/* Converter samples were overwritten before they were read. */
struct qk_wire_samples_lost {
	uint32_t lost_count;
} __attribute__((packed));
_Static_assert(sizeof(struct qk_wire_samples_lost) == 4, "qk_wire_samples_lost");
_Static_assert(offsetof(struct qk_wire_samples_lost, lost_count) == 0, "qk_wire_samples_lost.lost_count");

#define QK_WIRE_PACK_AUTH_TYPE 0x1bu
/* A pack was challenged: every 5 s. */
struct qk_wire_pack_auth {
	uint8_t pack;
	uint8_t accepted; /* 1: the answer was right. */
	uint32_t pack_id;
	uint32_t challenge;
	uint32_t response;
} __attribute__((packed));
_Static_assert(sizeof(struct qk_wire_pack_auth) == 14, "qk_wire_pack_auth");
_Static_assert(offsetof(struct qk_wire_pack_auth, pack) == 0, "qk_wire_pack_auth.pack");
_Static_assert(offsetof(struct qk_wire_pack_auth, accepted) == 1, "qk_wire_pack_auth.accepted");
_Static_assert(offsetof(struct qk_wire_pack_auth, pack_id) == 2, "qk_wire_pack_auth.pack_id");
_Static_assert(offsetof(struct qk_wire_pack_auth, challenge) == 6, "qk_wire_pack_auth.challenge");
_Static_assert(offsetof(struct qk_wire_pack_auth, response) == 10, "qk_wire_pack_auth.response");

#define QK_WIRE_BUS_TYPE 0x19u
#define QK_WIRE_BUS_SAMPLES 100u
/* The bus at the converter's rate. */
struct qk_wire_bus {
	uint32_t first_index; /* Samples since reset before the first of this block. */
	uint64_t first_us; /* us; Time of the first sample by the converter's clock. */
	uint32_t period_ns; /* ns; From one sample to the next. */
	uint8_t count; /* Samples that are filled, from the first on; the others are 0. */
	uint16_t bus_sample_mv[100]; /* mV */
} __attribute__((packed));
_Static_assert(sizeof(struct qk_wire_bus) == 217, "qk_wire_bus");
_Static_assert(offsetof(struct qk_wire_bus, first_index) == 0, "qk_wire_bus.first_index");
_Static_assert(offsetof(struct qk_wire_bus, first_us) == 4, "qk_wire_bus.first_us");
_Static_assert(offsetof(struct qk_wire_bus, period_ns) == 12, "qk_wire_bus.period_ns");
_Static_assert(offsetof(struct qk_wire_bus, count) == 16, "qk_wire_bus.count");
_Static_assert(offsetof(struct qk_wire_bus, bus_sample_mv) == 17, "qk_wire_bus.bus_sample_mv");

#define QK_FRAME_HEADER_SOURCE_CHIP 0xfu
#define QK_FRAME_HEADER_SOURCE_BOOT 0xf0u
/* In front of every payload. */
struct qk_wire_frame_header {
	uint8_t type; /* Message type. */
	uint8_t source; /* Which stream this frame belongs to. */
	uint16_t seq; /* Counts frames of this chip, wraps; a frame that was dropped before sending has used its number. */
	uint64_t time_us; /* us; Device time since its reset. */
} __attribute__((packed));
_Static_assert(sizeof(struct qk_wire_frame_header) == 12, "qk_wire_frame_header");
_Static_assert(offsetof(struct qk_wire_frame_header, type) == 0, "qk_wire_frame_header.type");
_Static_assert(offsetof(struct qk_wire_frame_header, source) == 1, "qk_wire_frame_header.source");
_Static_assert(offsetof(struct qk_wire_frame_header, seq) == 2, "qk_wire_frame_header.seq");
_Static_assert(offsetof(struct qk_wire_frame_header, time_us) == 4, "qk_wire_frame_header.time_us");

#define QK_WIRE_HELLO_TYPE 0x01u
/* Opens a stream and repeats every second. Its CRC is not seeded. */
struct qk_wire_hello {
	uint16_t layout_hash; /* Of all messages; seeds the CRC of every other frame. */
	uint8_t protocol_version;
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
_Static_assert(sizeof(struct qk_wire_hello) == 77, "qk_wire_hello");
_Static_assert(offsetof(struct qk_wire_hello, layout_hash) == 0, "qk_wire_hello.layout_hash");
_Static_assert(offsetof(struct qk_wire_hello, protocol_version) == 2, "qk_wire_hello.protocol_version");
_Static_assert(offsetof(struct qk_wire_hello, boot_id) == 3, "qk_wire_hello.boot_id");
_Static_assert(offsetof(struct qk_wire_hello, boot_count) == 7, "qk_wire_hello.boot_count");
_Static_assert(offsetof(struct qk_wire_hello, build_id) == 11, "qk_wire_hello.build_id");
_Static_assert(offsetof(struct qk_wire_hello, board) == 19, "qk_wire_hello.board");
_Static_assert(offsetof(struct qk_wire_hello, serial) == 35, "qk_wire_hello.serial");
_Static_assert(offsetof(struct qk_wire_hello, version_major) == 51, "qk_wire_hello.version_major");
_Static_assert(offsetof(struct qk_wire_hello, version_minor) == 52, "qk_wire_hello.version_minor");
_Static_assert(offsetof(struct qk_wire_hello, version_revision) == 53, "qk_wire_hello.version_revision");
_Static_assert(offsetof(struct qk_wire_hello, version_build) == 55, "qk_wire_hello.version_build");
_Static_assert(offsetof(struct qk_wire_hello, slot) == 59, "qk_wire_hello.slot");
_Static_assert(offsetof(struct qk_wire_hello, image_state) == 60, "qk_wire_hello.image_state");
_Static_assert(offsetof(struct qk_wire_hello, reset_reason) == 61, "qk_wire_hello.reset_reason");
_Static_assert(offsetof(struct qk_wire_hello, rollback_reason) == 62, "qk_wire_hello.rollback_reason");
_Static_assert(offsetof(struct qk_wire_hello, selftest_count) == 63, "qk_wire_hello.selftest_count");
_Static_assert(offsetof(struct qk_wire_hello, selftest_passed) == 64, "qk_wire_hello.selftest_passed");
_Static_assert(offsetof(struct qk_wire_hello, uptime_ms) == 65, "qk_wire_hello.uptime_ms");
_Static_assert(offsetof(struct qk_wire_hello, dropped_count) == 69, "qk_wire_hello.dropped_count");
_Static_assert(offsetof(struct qk_wire_hello, yielded_count) == 73, "qk_wire_hello.yielded_count");

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

#define QK_WIRE_THROTTLE_CHANGED_TYPE 0x21u
/* The governor chose another level. */
struct qk_wire_throttle_changed {
	uint8_t throttle_level;
	uint8_t throttle_zone;
} __attribute__((packed));
_Static_assert(sizeof(struct qk_wire_throttle_changed) == 2, "qk_wire_throttle_changed");
_Static_assert(offsetof(struct qk_wire_throttle_changed, throttle_level) == 0, "qk_wire_throttle_changed.throttle_level");
_Static_assert(offsetof(struct qk_wire_throttle_changed, throttle_zone) == 1, "qk_wire_throttle_changed.throttle_zone");

#endif /* QK_TELEMETRY_H */
