/* SPDX-License-Identifier: Apache-2.0 */
#include "qk_frame.h"

#include <string.h>

#include "qk_crc.h"
#include "qk_telemetry.h"

static uint32_t crc_start(uint8_t type)
{
	static const uint8_t layout[2] = {QK_TELEMETRY_LAYOUT_HASH & 0xffu, QK_TELEMETRY_LAYOUT_HASH >> 8};

	return type == QK_WIRE_HELLO_TYPE ? 0u : qk_crc32(0, layout, sizeof layout);
}

size_t qk_frame_build(uint8_t *out, uint8_t type, uint8_t source, uint16_t seq, uint64_t time_us, const void *payload,
                      size_t size)
{
	struct qk_wire_frame_header header = {.type = type, .source = source, .seq = seq, .time_us = time_us};
	uint8_t raw[sizeof header + QK_FRAME_PAYLOAD_MAX + 4u];
	size_t raw_size = sizeof header + size, code_at = 1, used = 2;
	uint32_t crc;

	if (size > QK_FRAME_PAYLOAD_MAX) {
		return 0;
	}
	memcpy(raw, &header, sizeof header);
	memcpy(raw + sizeof header, payload, size);
	crc = qk_crc32(crc_start(type), raw, raw_size);
	for (unsigned i = 0; i < 4; i++) {
		raw[raw_size++] = (uint8_t)(crc >> (8 * i));
	}
	/* At most 253 bytes: a group never grows to 0xff, so every group but the last stands for its zero. */
	out[0] = 0;
	for (size_t i = 0; i < raw_size; i++) {
		if (raw[i]) {
			out[used++] = raw[i];
		} else {
			out[code_at] = (uint8_t)(used - code_at);
			code_at = used++;
		}
	}
	out[code_at] = (uint8_t)(used - code_at);
	out[used++] = 0;
	return used;
}

int qk_frame_parse(uint8_t *run, size_t size)
{
	size_t in = 0, out = 0;
	uint32_t crc;

	while (in < size) {
		uint8_t code = run[in++];

		if (code == 0 || code == 0xff || code - 1u > size - in) {
			return -1;
		}
		for (uint8_t i = 1; i < code; i++) {
			if (run[in] == 0) {
				return -1;
			}
			run[out++] = run[in++];
		}
		if (in < size) {
			run[out++] = 0;
		}
	}
	if (out < sizeof(struct qk_wire_frame_header) + 4u) {
		return -1;
	}
	crc = qk_crc32(crc_start(run[0]), run, out - 4u);
	for (unsigned i = 0; i < 4; i++) {
		if (run[out - 4u + i] != (uint8_t)(crc >> (8 * i))) {
			return -1;
		}
	}
	return (int)(out - 4u - sizeof(struct qk_wire_frame_header));
}
