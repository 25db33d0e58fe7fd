/* SPDX-License-Identifier: Apache-2.0 */
#include "qk_app.h"

#include <string.h>

#include "qk_board.h"
#include "qk_crc.h"
#include "qk_plant.h"
#include "qk_port.h"
#include "qk_retained.h"

/* Who this is: board, serial number, build, boot. */

#define BUILD_ID_BYTES 8u
#define NOTE_HEADER_BYTES 16u /* sizes, type and the name "GNU" */

extern const uint8_t qk_build_id[]; /* the linker's note */

static char serial[17];
static uint32_t boot_id, ar1_version;

void qk_identity_start(void)
{
	struct qk_wire_plant_control control;
	struct {
		uint32_t entropy[2];
		uint32_t boot_count;
		uint64_t counter;
	} mix;

	memcpy(&control, (const void *)qk_mailbox(), sizeof control);
	memcpy(serial, control.serial, sizeof control.serial);
	ar1_version = control.ar1_version;
	memset(&mix, 0, sizeof mix);
	memcpy(mix.entropy, control.entropy, sizeof mix.entropy);
	mix.boot_count = qk_retained()->boot_count;
	mix.counter = qk_port_counter();
	boot_id = qk_crc32(0, &mix, sizeof mix);
}

const char *qk_identity_serial(void)
{
	return serial;
}

uint32_t qk_identity_ar1_version(void)
{
	struct qk_peer peer;

	return qk_peer_get(&peer) ? peer.version : ar1_version;
}

uint32_t qk_identity_boot_id(void)
{
	return boot_id;
}

const uint8_t *qk_identity_build_id(void)
{
	return qk_build_id + NOTE_HEADER_BYTES;
}

void qk_identity_hello(struct qk_wire_hello *hello)
{
	const struct qk_retained *retained = qk_retained();
	struct qk_health health;

	qk_health_check(&health);
	memset(hello, 0, sizeof *hello);
	hello->layout_hash = QK_TELEMETRY_LAYOUT_HASH;
	hello->protocol_version = 1;
	hello->boot_id = boot_id;
	hello->boot_count = retained->boot_count;
	memcpy(hello->build_id, qk_identity_build_id(), sizeof hello->build_id);
	memcpy(hello->board, qk_board.name, strlen(qk_board.name));
	memcpy(hello->serial, serial, sizeof hello->serial);
	hello->version_major = QK_VERSION_MAJOR;
	hello->version_minor = QK_VERSION_MINOR;
	hello->version_revision = QK_VERSION_REVISION;
	hello->version_build = QK_VERSION_BUILD;
	hello->slot = retained->slot;
	hello->image_state = retained->image_state;
	hello->reset_reason = retained->reset_reason;
	hello->rollback_reason = retained->rollback_reason;
	hello->selftest_count = health.count;
	hello->selftest_passed = health.passed;
	hello->uptime_ms = osKernelGetTickCount();
	hello->dropped_count = qk_stream_dropped_count();
	hello->yielded_count = qk_stream_yielded_count();
}

void qk_identity_put(struct qk_cbor_writer *writer)
{
	const struct qk_retained *retained = qk_retained();

	uint8_t key_hash[QK_IMAGE_HASH_BYTES];

	qk_image_key_hash(qk_board.public_key, key_hash);
	qk_cbor_pair_text(writer, "board", qk_board.name);
	qk_cbor_pair_text(writer, "serial", serial);
	qk_cbor_pair_bytes(writer, "build_id", qk_identity_build_id(), BUILD_ID_BYTES);
	qk_cbor_pair_uint(writer, "boot_id", boot_id);
	qk_cbor_pair_uint(writer, "boot_count", retained->boot_count);
	qk_cbor_pair_uint(writer, "slot", retained->slot);
	qk_cbor_pair_uint(writer, "image_state", retained->image_state);
	qk_cbor_pair_uint(writer, "reset_reason", retained->reset_reason);
	qk_cbor_pair_uint(writer, "rollback_reason", retained->rollback_reason);
	qk_cbor_pair_uint(writer, "security_counter", retained->security_counter);
	qk_cbor_pair_uint(writer, "ar1_version", qk_identity_ar1_version());
	qk_cbor_pair_uint(writer, "layout_hash", QK_TELEMETRY_LAYOUT_HASH);
	qk_cbor_pair_bytes(writer, "key_hash", key_hash, sizeof key_hash);
}
