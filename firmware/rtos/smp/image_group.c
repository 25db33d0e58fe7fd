/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "qk_flash.h"
#include "qk_sha2.h"
#include "qk_smp_image.h"

#define IMAGE_HEADER_BYTES 32u

/* Decimal without the C library's printf, which would double the size of the bootloader. */
static char *put_decimal(char *at, uint32_t value)
{
	char digits[10];
	unsigned count = 0;

	do {
		digits[count++] = (char)('0' + value % 10u);
		value /= 10u;
	} while (value);
	while (count) {
		*at++ = digits[--count];
	}
	return at;
}

static void version_text(char text[32], const struct qk_image_version *version)
{
	char *at = put_decimal(text, version->major);

	*at++ = '.';
	at = put_decimal(at, version->minor);
	*at++ = '.';
	at = put_decimal(at, version->revision);
	if (version->build) {
		*at++ = '.'; /* MCUboot separates the build number by a dot on the wire */
		at = put_decimal(at, version->build);
	}
	*at = 0;
}

static enum qk_image_verdict parse_slot(const struct qk_smp_server *server, uint8_t slot, struct qk_image *image)
{
	return qk_image_parse(qk_flash_map(server->layout->slot_offset[slot]), server->layout->slot_bytes, image);
}

/* The slot that may be overwritten: never the running, never the confirmed one while it is sound. */
static uint8_t spare_slot(const struct qk_smp_server *server)
{
	struct qk_boot_state state;
	struct qk_image image;

	if (server->running_slot != QK_SLOT_NONE) {
		return (uint8_t)(1u - server->running_slot);
	}
	qk_boot_state_load(server->layout, &state);
	if (state.seq && qk_image_check(qk_flash_map(server->layout->slot_offset[state.confirmed_slot]),
	                                server->layout->slot_bytes, server->policy, &image) == QK_IMAGE_OK) {
		return (uint8_t)(1u - state.confirmed_slot);
	}
	return state.seq ? state.confirmed_slot : 0;
}

/* While a trial runs, the other slot holds the image to go back to. */
static bool spare_is_needed(const struct qk_smp_server *server)
{
	struct qk_boot_state state;

	qk_boot_state_load(server->layout, &state);
	return server->running_slot != QK_SLOT_NONE && state.trial_phase == QK_TRIAL_STARTED;
}

void qk_smp_image_list(struct qk_smp_server *server, struct qk_smp_reply *reply)
{
	struct qk_boot_state state;

	qk_boot_state_load(server->layout, &state);
	qk_cbor_put_text(&reply->writer, "images");
	qk_cbor_open_array(&reply->writer);
	for (uint8_t slot = 0; slot < QK_SLOT_COUNT; slot++) {
		struct qk_image image;
		char version[32];

		if (parse_slot(server, slot, &image) != QK_IMAGE_OK) {
			continue;
		}
		version_text(version, &image.version);
		qk_cbor_open_map(&reply->writer);
		qk_cbor_pair_uint(&reply->writer, "image", 0);
		qk_cbor_pair_uint(&reply->writer, "slot", slot);
		qk_cbor_pair_text(&reply->writer, "version", version);
		qk_cbor_pair_bytes(&reply->writer, "hash", image.hash, sizeof image.hash);
		qk_cbor_pair_bool(&reply->writer, "bootable", true);
		qk_cbor_pair_bool(&reply->writer, "pending",
		                  state.trial_phase == QK_TRIAL_REQUESTED && state.trial_slot == slot);
		qk_cbor_pair_bool(&reply->writer, "confirmed", state.seq && state.confirmed_slot == slot);
		qk_cbor_pair_bool(&reply->writer, "active", server->running_slot == slot);
		qk_cbor_pair_bool(&reply->writer, "permanent", false);
		qk_cbor_close(&reply->writer);
	}
	qk_cbor_close(&reply->writer);
	qk_cbor_pair_uint(&reply->writer, "splitStatus", 0);
}

static void confirm(struct qk_smp_server *server, struct qk_smp_reply *reply)
{
	struct qk_image image;

	if (server->running_slot == QK_SLOT_NONE || parse_slot(server, server->running_slot, &image) != QK_IMAGE_OK ||
	    !qk_boot_confirm(server->layout, server->running_slot, image.security_counter)) {
		qk_smp_error(reply, QK_SMP_EBADSTATE, "nothing to confirm: no trial is running");
		return;
	}
	qk_smp_image_list(server, reply);
}

/* `{hash, confirm}`: test the image with this hash at the next start, or confirm the running one. */
void qk_smp_image_choose(struct qk_smp_server *server, struct qk_smp_reply *reply, const uint8_t *payload, size_t size)
{
	struct qk_cbor_reader reader = {payload, payload + size};
	struct qk_cbor_map map;
	struct qk_cbor_text key, hash = {0};
	struct qk_cbor_value value;
	bool wants_confirm = false, runs = false;
	uint8_t other = QK_SLOT_NONE;
	int more;

	if (!qk_cbor_map_open(&map, &reader)) {
		qk_smp_error(reply, QK_SMP_EINVAL, "not a map");
		return;
	}
	while ((more = qk_cbor_map_next(&map, &key, &value)) > 0) {
		if (qk_cbor_key_is(&key, "hash") && value.kind == QK_CBOR_BYTES) {
			hash = value.text;
		} else if (qk_cbor_key_is(&key, "confirm") && value.kind == QK_CBOR_BOOL) {
			wants_confirm = value.number != 0;
		}
	}
	if (more < 0 || (hash.size != 0 && hash.size != QK_IMAGE_HASH_BYTES) || (!hash.size && !wants_confirm)) {
		qk_smp_error(reply, QK_SMP_EINVAL, "needs a hash of 32 bytes, or confirm");
		return;
	}
	if (!hash.size) {
		confirm(server, reply);
		return;
	}
	for (uint8_t slot = 0; slot < QK_SLOT_COUNT; slot++) {
		struct qk_image image;

		if (parse_slot(server, slot, &image) != QK_IMAGE_OK || memcmp(image.hash, hash.data, hash.size) != 0) {
			continue;
		}
		if (slot == server->running_slot) {
			runs = true;
		} else {
			other = slot; /* the same image may be in both: to be tested there, to be confirmed where it runs */
		}
	}
	if (!runs && other == QK_SLOT_NONE) {
		qk_smp_error(reply, QK_SMP_ENOENT, "no slot holds an image with this hash");
	} else if (wants_confirm && runs) {
		confirm(server, reply);
	} else if (wants_confirm) {
		qk_smp_error(reply, QK_SMP_EBADSTATE, "only a running image can be confirmed: test it first");
	} else if (other == QK_SLOT_NONE) {
		qk_smp_error(reply, QK_SMP_EBADSTATE, "this image is running");
	} else if (spare_is_needed(server)) {
		qk_smp_error(reply, QK_SMP_EBADSTATE, "a trial is running: confirm it or reset first");
	} else {
		enum qk_image_verdict verdict = qk_boot_request_trial(server->layout, server->policy, other);

		if (verdict != QK_IMAGE_OK) {
			qk_smp_error(reply, QK_SMP_EINVAL, qk_image_verdict_text(verdict));
			return;
		}
		qk_smp_image_list(server, reply);
	}
}

struct upload_request {
	bool has_offset, has_size, has_data, has_sha;
	uint64_t offset, size, image;
	struct qk_cbor_text data, sha;
};

static bool read_upload(struct upload_request *upload, const uint8_t *payload, size_t size)
{
	struct qk_cbor_reader reader = {payload, payload + size};
	struct qk_cbor_map map;
	struct qk_cbor_text key;
	struct qk_cbor_value value;
	int more;

	memset(upload, 0, sizeof *upload);
	if (!qk_cbor_map_open(&map, &reader)) {
		return false;
	}
	while ((more = qk_cbor_map_next(&map, &key, &value)) > 0) {
		if (qk_cbor_key_is(&key, "off") && value.kind == QK_CBOR_UINT) {
			upload->has_offset = true;
			upload->offset = value.number;
		} else if (qk_cbor_key_is(&key, "len") && value.kind == QK_CBOR_UINT) {
			upload->has_size = true;
			upload->size = value.number;
		} else if (qk_cbor_key_is(&key, "image") && value.kind == QK_CBOR_UINT) {
			upload->image = value.number;
		} else if (qk_cbor_key_is(&key, "data") && value.kind == QK_CBOR_BYTES) {
			upload->has_data = true;
			upload->data = value.text;
		} else if (qk_cbor_key_is(&key, "sha") && value.kind == QK_CBOR_BYTES) {
			upload->has_sha = value.text.size == sizeof((struct qk_smp_server *)0)->upload.sha;
			upload->sha = value.text;
		}
	}
	return more == 0 && upload->has_offset && upload->has_data;
}

/* False: refused, the reply says why. */
static bool open_upload(struct qk_smp_server *server, struct qk_smp_reply *reply, const struct upload_request *request)
{
	static const uint8_t magic[4] = {0x3d, 0xb8, 0xf3, 0x96};

	if (!request->has_size || request->image > 0 || request->size < IMAGE_HEADER_BYTES ||
	    request->data.size < IMAGE_HEADER_BYTES || memcmp(request->data.data, magic, sizeof magic) != 0) {
		qk_smp_error(reply, QK_SMP_EINVAL, "the first chunk must hold the header of an MCUboot image");
		return false;
	}
	if (request->size > server->layout->slot_bytes) {
		qk_smp_error(reply, QK_SMP_EMSGSIZE, "larger than the slot");
		return false;
	}
	if (spare_is_needed(server)) {
		qk_smp_error(reply, QK_SMP_EBADSTATE, "a trial is running and the other slot holds the way back");
		return false;
	}
	if (server->upload.open && server->upload.size == request->size && server->upload.has_sha && request->has_sha &&
	    memcmp(server->upload.sha, request->sha.data, sizeof server->upload.sha) == 0) {
		return true; /* the same file again: the answer says where to go on */
	}
	if (!qk_boot_cancel_trial(server->layout)) {
		qk_smp_error(reply, QK_SMP_EUNKNOWN, "flash refused");
		return false;
	}
	memset(&server->upload, 0, sizeof server->upload);
	server->upload.open = true;
	server->upload.slot = spare_slot(server);
	server->upload.size = (uint32_t)request->size;
	server->upload.has_sha = request->has_sha;
	if (request->has_sha) {
		memcpy(server->upload.sha, request->sha.data, sizeof server->upload.sha);
	}
	return true;
}

static bool store(struct qk_smp_server *server, const struct qk_cbor_text *data)
{
	uint32_t base = server->layout->slot_offset[server->upload.slot];
	uint32_t end = server->upload.offset + (uint32_t)data->size;

	while (server->upload.erased < end) {
		if (!qk_flash_erase(base + server->upload.erased)) {
			return false;
		}
		server->upload.erased += QK_FLASH_SECTOR_BYTES;
	}
	if (!qk_flash_program(base + server->upload.offset, data->data, data->size)) {
		return false;
	}
	server->upload.offset = end;
	return true;
}

static bool stored_matches(const struct qk_smp_server *server)
{
	struct qk_sha256 hash;
	uint8_t digest[QK_SHA256_BYTES];

	qk_sha256_init(&hash);
	qk_sha256_update(&hash, qk_flash_map(server->layout->slot_offset[server->upload.slot]), server->upload.size);
	qk_sha256_finish(&hash, digest);
	return memcmp(digest, server->upload.sha, sizeof digest) == 0;
}

void qk_smp_image_upload(struct qk_smp_server *server, struct qk_smp_reply *reply, const uint8_t *payload, size_t size)
{
	struct upload_request request;

	if (!read_upload(&request, payload, size)) {
		qk_smp_error(reply, QK_SMP_EINVAL, "upload needs off and data");
		return;
	}
	if (request.offset == 0 && !open_upload(server, reply, &request)) {
		return;
	}
	if (!server->upload.open) {
		qk_smp_error(reply, QK_SMP_EBADSTATE, "no upload is open: start at offset 0");
		return;
	}
	if (request.offset == server->upload.offset && request.data.size) {
		if (request.data.size > server->upload.size - server->upload.offset) {
			qk_smp_error(reply, QK_SMP_EINVAL, "more data than announced");
			return;
		}
		if (!store(server, &request.data)) {
			server->upload.open = false;
			qk_smp_error(reply, QK_SMP_EUNKNOWN, "flash refused");
			return;
		}
	}
	/* A wrong offset is answered by the right one: the client seeks. */
	qk_cbor_pair_uint(&reply->writer, "rc", 0);
	qk_cbor_pair_uint(&reply->writer, "off", server->upload.offset);
	/* The finished upload stays open: when this answer is lost, the repeated request gets the same one. */
	if (server->upload.offset == server->upload.size && server->upload.has_sha) {
		bool match = stored_matches(server);

		qk_cbor_pair_bool(&reply->writer, "match", match);
		server->upload.open = match; /* else the same file begins anew */
	}
}

void qk_smp_image_erase(struct qk_smp_server *server, struct qk_smp_reply *reply, const uint8_t *payload, size_t size)
{
	uint8_t slot = spare_slot(server);
	uint32_t base = server->layout->slot_offset[slot];

	(void)payload;
	(void)size;
	if (spare_is_needed(server) || !qk_boot_cancel_trial(server->layout)) {
		qk_smp_error(reply, QK_SMP_EBADSTATE, "a trial is running and the other slot holds the way back");
		return;
	}
	server->upload.open = false;
	for (uint32_t at = 0; at < server->layout->slot_bytes; at += QK_FLASH_SECTOR_BYTES) {
		if (!qk_flash_erase(base + at)) {
			qk_smp_error(reply, QK_SMP_EUNKNOWN, "flash refused");
			return;
		}
	}
}

void qk_smp_image_slots(struct qk_smp_server *server, struct qk_smp_reply *reply)
{
	qk_cbor_put_text(&reply->writer, "images");
	qk_cbor_open_array(&reply->writer);
	qk_cbor_open_map(&reply->writer);
	qk_cbor_pair_uint(&reply->writer, "image", 0);
	qk_cbor_put_text(&reply->writer, "slots");
	qk_cbor_open_array(&reply->writer);
	for (uint8_t slot = 0; slot < QK_SLOT_COUNT; slot++) {
		qk_cbor_open_map(&reply->writer);
		qk_cbor_pair_uint(&reply->writer, "slot", slot);
		qk_cbor_pair_uint(&reply->writer, "size", server->layout->slot_bytes);
		if (slot == spare_slot(server)) {
			qk_cbor_pair_uint(&reply->writer, "upload_image_id", 0);
		}
		qk_cbor_close(&reply->writer);
	}
	qk_cbor_close(&reply->writer);
	qk_cbor_pair_uint(&reply->writer, "max_image_size", server->layout->slot_bytes);
	qk_cbor_close(&reply->writer);
	qk_cbor_close(&reply->writer);
}
