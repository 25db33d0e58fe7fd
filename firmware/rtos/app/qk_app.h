/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QK_APP_H
#define QK_APP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cmsis_os2.h"
#include "qk_cbor.h"
#include "qk_kernel.h"
#include "qk_power.h"
#include "qk_telemetry.h"
#include "qk_thermal.h"

/* The application's threads and what they share. Data goes one way: sense -> report -> link. */

/* link.c: the serial line. Whole frames or nothing. */
void qk_link_start(void);
bool qk_link_put(const uint8_t *data, size_t size, uint32_t timeout_ms);

/* stream.c: numbered telemetry frames. */
enum qk_stream_result { QK_STREAM_SENT, QK_STREAM_DROPPED, QK_STREAM_YIELDED };
void qk_stream_start(uint32_t boot_id);
enum qk_stream_result qk_stream_send(uint8_t type, const void *payload, size_t size, uint16_t *seq);
/* A command exchange has the line: hold telemetry back for a moment, since a stranger's reader may stumble over it. */
void qk_stream_yield(void);
bool qk_stream_yielding(void);
uint32_t qk_stream_dropped_count(void);
uint32_t qk_stream_yielded_count(void);

/* sense.c: converter samples through the policies of core/. */
struct qk_sense {
	struct qk_power_sample sample;
	int16_t zone_decic[QK_ZONE_COUNT];
	uint8_t power_enabled, supply_state;
	bool pack_present[QK_PACK_COUNT];
	uint16_t swap_count[QK_PACK_COUNT];
	uint8_t undervoltage_count;
	uint8_t throttle_level, throttle_zone;
	uint16_t throttle_changes;
	uint32_t sample_count, sample_lost_count;
	bool plant_ok; /* the mailbox is there and has our layout */
};
void qk_sense_start(void);
void qk_sense_doorbell(void); /* from the interrupt */
void qk_sense_get(struct qk_sense *sense);
/* Takes the extremes since the last call, and puts them back when the frame did not leave. */
struct qk_latch qk_sense_latch_take(void);
void qk_sense_latch_sent(uint16_t seq);
void qk_sense_latch_put_back(const struct qk_latch *latch);

struct qk_pack_latch qk_sense_pack_latch_take(void);
void qk_sense_pack_latch_sent(uint16_t seq);
void qk_sense_pack_latch_put_back(const struct qk_pack_latch *latch);
void qk_sense_slow_read(uint16_t version); /* what the slow buses held until this version may start anew */

/* motion.c: the inertial sensor's FIFO, in blocks; called by the sense thread. */
void qk_motion_start(void);
void qk_motion_drain(void);

/* slow.c: gauges, authenticators, charger and the AR1's lines. */
void qk_slow_report(void); /* once a second */

/* peer.c: the AR1 on its UART. */
struct qk_peer {
	uint32_t version; /* major << 24 | minor << 16 | revision; 0 while it has said nothing since reset */
	uint32_t sent_count, lost_count;
	uint32_t latency_us_max; /* held until its report has left */
};
void qk_peer_start(void);
void qk_peer_byte(uint8_t byte);        /* from the interrupt */
bool qk_peer_get(struct qk_peer *peer); /* true when the AR1 has ever answered */
void qk_peer_latency_sent(uint32_t latency_us_max);

/* report.c: what goes out and when. */
void qk_report_start(void);
void qk_report_event(uint8_t type, const void *payload, size_t size); /* one of the [[event]] messages */

/* command.c: SMP. */
void qk_command_start(void);
void qk_command_byte(uint8_t byte); /* from the interrupt */

/* identity.c */
const char *qk_identity_serial(void);
/* What the AR1 runs: major << 24 | minor << 16 | revision; 0 while it has said nothing. */
uint32_t qk_identity_ar1_version(void);
uint32_t qk_identity_boot_id(void);
const uint8_t *qk_identity_build_id(void); /* 8 bytes */
void qk_identity_start(void);
void qk_identity_hello(struct qk_wire_hello *hello);
void qk_identity_put(struct qk_cbor_writer *writer);

/* health.c */
struct qk_health {
	uint8_t count, passed;
	const char *failed; /* name of the first that failed, NULL if none */
};
void qk_health_check(struct qk_health *health);
void qk_health_put(struct qk_cbor_writer *writer);

/* guard.c: kicks the watchdog for as long as every thread does its round. */
enum { QK_GUARD_SENSE, QK_GUARD_REPORT, QK_GUARD_COUNT };
void qk_guard_start(void);
void qk_guard_alive(unsigned thread);

/* sabotage.c: faults built into test images on purpose; empty in a release. */
void qk_sabotage_start(void);

#endif
