/* SPDX-License-Identifier: Apache-2.0 */
#include "qk_app.h"

#include <string.h>

#include "qk_board.h"
#include "qk_plant.h"
#include "qk_port.h"
#include "qk_telemetry.h"

/* What is read over slow buses. On the virtual boards their registers lie in the mailbox, and the plant model writes
 * them; a reader believes them only when the version is the same before and after. */

#define SLOW_OFFSET 0xb000u
#define READ_ATTEMPTS 3u
#define AUTH_EVERY 5u /* reads */

static uint32_t version_read;
static uint32_t reads;
static uint32_t counted_sent, counted_lost; /* requests of the model, before the AR1 answered itself */

static bool read(struct qk_wire_plant_slow *out)
{
	const uint8_t *registers = (const uint8_t *)(uintptr_t)qk_mailbox() + SLOW_OFFSET;

	for (unsigned attempt = 0; attempt < READ_ATTEMPTS; attempt++) {
		uint32_t version;

		memcpy(out, registers, sizeof *out);
		qk_memory_barrier();
		memcpy(&version, registers, sizeof version);
		if (out->version == version && out->version_end == version) {
			return version && version != version_read;
		}
	}
	return false;
}

static void send_auth(const struct qk_wire_plant_slow *slow)
{
	for (uint8_t pack = 0; pack < QK_PACK_COUNT; pack++) {
		struct qk_wire_pack_auth out = {.pack = pack, .accepted = slow->accepted[pack]};

		if ((slow->pack_present >> pack) & 1u) {
			memcpy(&out.pack_id, (const uint8_t *)slow->pack_id + pack * sizeof out.pack_id, sizeof out.pack_id);
			memcpy(&out.challenge, (const uint8_t *)slow->challenge + pack * sizeof out.challenge,
			       sizeof out.challenge);
			memcpy(&out.response, (const uint8_t *)slow->response + pack * sizeof out.response, sizeof out.response);
			qk_report_event(QK_WIRE_PACK_AUTH_TYPE, &out, sizeof out);
		}
	}
}

void qk_slow_report(void)
{
	struct qk_wire_plant_slow slow;
	struct qk_wire_gauge gauge;
	struct qk_wire_charger charger;
	struct qk_wire_ar1_link link;
	struct qk_wire_display display;
	struct qk_wire_camera camera;
	struct qk_peer peer;
	uint16_t seq;

	if (!read(&slow)) {
		return;
	}
	version_read = slow.version;
	memcpy(gauge.gauge_soc_pct, slow.gauge_soc_pct, sizeof gauge.gauge_soc_pct);
	memcpy(gauge.remaining_mah, slow.remaining_mah, sizeof gauge.remaining_mah);
	memcpy(gauge.full_mah, slow.full_mah, sizeof gauge.full_mah);
	memcpy(gauge.design_mah, slow.design_mah, sizeof gauge.design_mah);
	memcpy(gauge.cycle_count, slow.cycle_count, sizeof gauge.cycle_count);
	memcpy(gauge.max_error_pct, slow.max_error_pct, sizeof gauge.max_error_pct);
	charger = (struct qk_wire_charger){.charger_state = slow.charger_state, .charge_ma_max = slow.charge_ma_max};
	link = (struct qk_wire_ar1_link){
	    .sent_count = slow.sent_count,
	    .lost_count = slow.lost_count,
	    .latency_us_max = slow.latency_us_max,
	    .wake_us_max = slow.wake_us_max,
	    .hand_over_us_max = slow.hand_over_us_max,
	    .ar1_version = qk_identity_ar1_version(),
	};
	if (qk_peer_get(&peer)) { /* it answers on its own line: the model has nothing to say of that any more */
		link.sent_count = counted_sent + peer.sent_count;
		link.lost_count = counted_lost + peer.lost_count;
		link.latency_us_max = peer.latency_us_max;
	} else {
		counted_sent = slow.sent_count;
		counted_lost = slow.lost_count;
	}
	display = (struct qk_wire_display){.frame_count = slow.frame_count, .dropped_count = slow.dropped_count};
	camera = (struct qk_wire_camera){.camera_frame_count = slow.camera_frame_count,
	                                 .camera_dropped_count = slow.camera_dropped_count};
	(void)qk_stream_send(QK_WIRE_GAUGE_TYPE, &gauge, sizeof gauge, &seq);
	(void)qk_stream_send(QK_WIRE_CHARGER_TYPE, &charger, sizeof charger, &seq);
	/* what is held starts anew only when its report has left */
	if (qk_stream_send(QK_WIRE_AR1_LINK_TYPE, &link, sizeof link, &seq) == QK_STREAM_SENT) {
		qk_sense_slow_read((uint16_t)slow.version);
		qk_peer_latency_sent(link.latency_us_max);
	} else {
		version_read = 0;
	}
	if (qk_board.display_count) {
		(void)qk_stream_send(QK_WIRE_DISPLAY_TYPE, &display, sizeof display, &seq);
	}
	(void)qk_stream_send(QK_WIRE_CAMERA_TYPE, &camera, sizeof camera, &seq);
	if (reads++ % AUTH_EVERY == 0) {
		send_auth(&slow);
	}
}
