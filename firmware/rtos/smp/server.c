/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "qk_smp.h"
#include "qk_smp_image.h"

#define HEADER_BYTES 8u

enum { OP_READ = 0, OP_WRITE = 2 };
enum { GROUP_OS = 0, GROUP_IMAGE = 1 };
enum { OS_ECHO = 0, OS_RESET = 5, OS_PARAMS = 6, OS_BOOTLOADER_INFO = 8 };
enum { IMAGE_STATE = 0, IMAGE_UPLOAD = 1, IMAGE_ERASE = 5, IMAGE_SLOT_INFO = 6 };

void qk_smp_init(struct qk_smp_server *server, const struct qk_boot_layout *layout,
                 const struct qk_image_policy *policy, const struct qk_smp_hooks *hooks, uint8_t running_slot)
{
	memset(server, 0, sizeof *server);
	server->layout = layout;
	server->policy = policy;
	server->hooks = hooks;
	server->running_slot = running_slot;
	server->mode = running_slot == QK_SLOT_NONE ? "recovery" : "application";
	server->buffer_count = 1;
}

void qk_smp_error(struct qk_smp_reply *reply, enum qk_smp_error error, const char *reason)
{
	reply->error = error;
	reply->reason = reason;
}

/* The value of one text key; false if the map has no such text. */
static bool find_text(const uint8_t *payload, size_t size, const char *name, struct qk_cbor_text *text)
{
	struct qk_cbor_reader reader = {payload, payload + size};
	struct qk_cbor_map map;
	struct qk_cbor_text key;
	struct qk_cbor_value value;

	if (!qk_cbor_map_open(&map, &reader)) {
		return false;
	}
	while (qk_cbor_map_next(&map, &key, &value) > 0) {
		if (value.kind == QK_CBOR_TEXT && qk_cbor_key_is(&key, name)) {
			*text = value.text;
			return true;
		}
	}
	return false;
}

static void echo(struct qk_smp_reply *reply, const uint8_t *payload, size_t size)
{
	struct qk_cbor_text text;

	if (!find_text(payload, size, "d", &text)) {
		qk_smp_error(reply, QK_SMP_EINVAL, "echo needs d");
		return;
	}
	/* Head of the answer and of the text take at most 8 bytes. */
	if (text.size + 8u > (size_t)(reply->writer.end - reply->writer.at)) {
		qk_smp_error(reply, QK_SMP_EMSGSIZE, "text too long");
		return;
	}
	qk_cbor_put_text(&reply->writer, "r");
	{
		uint8_t *mark = reply->writer.at;

		qk_cbor_put_bytes(&reply->writer, text.data, text.size);
		*mark |= 0x20u; /* byte string to text string: major type 2 to 3 */
	}
}

static void os_group(struct qk_smp_server *server, struct qk_smp_reply *reply, uint8_t op, uint8_t id,
                     const uint8_t *payload, size_t size)
{
	struct qk_cbor_text query;

	switch (id) {
	case OS_ECHO:
		echo(reply, payload, size);
		return;
	case OS_PARAMS:
		qk_cbor_pair_uint(&reply->writer, "buf_size", QK_SMP_FRAME_MAX);
		qk_cbor_pair_uint(&reply->writer, "buf_count", server->buffer_count);
		return;
	case OS_RESET:
		if (op != OP_WRITE) {
			qk_smp_error(reply, QK_SMP_ENOTSUP, NULL);
			return;
		}
		server->reset_requested = true;
		return;
	case OS_BOOTLOADER_INFO:
		if (find_text(payload, size, "query", &query) && qk_cbor_key_is(&query, "mode")) {
			/* 4 is MCUboot's number for RAM load: the closest relative of what we do. */
			qk_cbor_pair_uint(&reply->writer, "mode", 4);
			qk_cbor_pair_bool(&reply->writer, "no-downgrade", true);
		} else {
			qk_cbor_pair_text(&reply->writer, "bootloader", "quark-boot");
		}
		return;
	default:
		qk_smp_error(reply, QK_SMP_ENOTSUP, NULL);
		return;
	}
}

static void image_group(struct qk_smp_server *server, struct qk_smp_reply *reply, uint8_t op, uint8_t id,
                        const uint8_t *payload, size_t size)
{
	if (id == IMAGE_STATE && op == OP_READ) {
		qk_smp_image_list(server, reply);
	} else if (id == IMAGE_STATE) {
		qk_smp_image_choose(server, reply, payload, size);
	} else if (id == IMAGE_UPLOAD && op == OP_WRITE) {
		qk_smp_image_upload(server, reply, payload, size);
	} else if (id == IMAGE_ERASE && op == OP_WRITE) {
		qk_smp_image_erase(server, reply, payload, size);
	} else if (id == IMAGE_SLOT_INFO && op == OP_READ) {
		qk_smp_image_slots(server, reply);
	} else {
		qk_smp_error(reply, QK_SMP_ENOTSUP, NULL);
	}
}

static void quark_group(struct qk_smp_server *server, struct qk_smp_reply *reply, uint8_t op, uint8_t id)
{
	const struct qk_smp_hooks *hooks = server->hooks;
	const void *record;
	size_t size;

	if (op == OP_READ && id == QK_SMP_QUARK_IDENTITY && hooks->identity) {
		qk_cbor_pair_text(&reply->writer, "mode", server->mode);
		hooks->identity(&reply->writer);
	} else if (op == OP_READ && id == QK_SMP_QUARK_HEALTH && hooks->health) {
		hooks->health(&reply->writer);
	} else if (op == OP_READ && id == QK_SMP_QUARK_FAULT && hooks->fault) {
		size = hooks->fault(&record);
		if (!size) {
			qk_smp_error(reply, QK_SMP_ENOENT, "no crash record");
			return;
		}
		qk_cbor_pair_bytes(&reply->writer, "record", record, size);
	} else {
		qk_smp_error(reply, QK_SMP_ENOTSUP, NULL);
	}
}

size_t qk_smp_handle(struct qk_smp_server *server, const uint8_t *request, size_t size, uint8_t *out)
{
	struct qk_smp_reply reply = {
	    .writer = {.at = out + HEADER_BYTES, .end = out + QK_SMP_MESSAGE_MAX - 1u},
	    .error = QK_SMP_EOK,
	};
	uint8_t op, id;
	uint16_t length, group;

	if (size < HEADER_BYTES) {
		return 0;
	}
	op = request[0] & 7u;
	length = (uint16_t)(request[2] << 8 | request[3]);
	group = (uint16_t)(request[4] << 8 | request[5]);
	id = request[7];
	if ((op != OP_READ && op != OP_WRITE) || length != size - HEADER_BYTES) {
		return 0;
	}
	qk_cbor_open_map(&reply.writer);
	switch (group) {
	case GROUP_OS:
		os_group(server, &reply, op, id, request + HEADER_BYTES, length);
		break;
	case GROUP_IMAGE:
		image_group(server, &reply, op, id, request + HEADER_BYTES, length);
		break;
	case QK_SMP_GROUP_QUARK:
		quark_group(server, &reply, op, id);
		break;
	default:
		qk_smp_error(&reply, QK_SMP_ENOTSUP, NULL);
		break;
	}
	if (reply.writer.full) {
		qk_smp_error(&reply, QK_SMP_EMSGSIZE, "answer too long");
	}
	if (reply.error != QK_SMP_EOK) {
		reply.writer.at = out + HEADER_BYTES;
		reply.writer.full = false;
		qk_cbor_open_map(&reply.writer);
		qk_cbor_pair_uint(&reply.writer, "rc", reply.error);
		if (reply.reason) {
			qk_cbor_pair_text(&reply.writer, "rsn", reply.reason);
		}
	}
	reply.writer.end++; /* room for the break was kept */
	qk_cbor_close(&reply.writer);
	length = (uint16_t)(reply.writer.at - out - HEADER_BYTES);
	memcpy(out, request, HEADER_BYTES);
	out[0] = (uint8_t)((request[0] & ~7u) | (op + 1u));
	out[1] = 0;
	out[2] = (uint8_t)(length >> 8);
	out[3] = (uint8_t)length;
	return HEADER_BYTES + length;
}
