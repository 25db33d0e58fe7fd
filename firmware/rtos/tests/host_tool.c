/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qk_ed25519.h"
#include "qk_frame.h"
#include "qk_host_flash.h"
#include "qk_line.h"
#include "qk_raw.h"
#include "qk_sha2.h"
#include "qk_smp.h"

/* The firmware's pure code behind a pipe, built with the address and undefined-behaviour sanitizers: the property tests
 * talk to it. A request is op u8, size u32 (little endian), body; an answer is size u32, body. Buffers are allocated to
 * the exact size, so that one byte too far is caught. */

enum {
	FRAME_BUILD = 1,
	FRAME_PARSE,
	LINE_FEED,
	LINE_BUILD,
	SMP_HANDLE,
	SHA256,
	SHA512,
	ED25519,
	IMAGE_PARSE,
	RAW_FEED
};

#define BODY_MAX (1u << 20)

static uint8_t body[BODY_MAX], answer[2 * BODY_MAX];
static struct qk_smp_server server;
static const struct qk_boot_layout layout = {
    .slot_offset = {0x000000, 0x100000}, .slot_bytes = 0x100000, .state_offset = {0x200000, 0x201000}};
static uint8_t public_key[32];
static const struct qk_image_policy policy = {
    .board = "s1-virtual", .public_key = public_key, .load_address = 0x01000000, .load_bytes_max = 0x200000};

static size_t handle(uint8_t op, size_t size)
{
	uint8_t *exact = malloc(size ? size : 1);
	size_t out = 0;

	memcpy(exact, body, size);
	switch (op) {
	case FRAME_BUILD: {
		uint16_t seq;
		uint64_t time_us;

		memcpy(&seq, exact + 2, sizeof seq);
		memcpy(&time_us, exact + 4, sizeof time_us);
		out = qk_frame_build(answer, exact[0], exact[1], seq, time_us, exact + 12, size - 12);
		break;
	}
	case FRAME_PARSE: {
		int payload = qk_frame_parse(exact, size);

		if (payload >= 0) {
			out = 12u + (size_t)payload;
			memcpy(answer, exact, out);
		}
		break;
	}
	case LINE_FEED: {
		static uint8_t buffer[QK_SMP_FRAME_MAX];
		struct qk_line_reader reader;

		qk_line_reader_init(&reader, buffer, sizeof buffer);
		for (size_t i = 0; i < size; i++) {
			if (qk_line_feed(&reader, exact[i]) && out + 2 + reader.message_size < sizeof answer) {
				answer[out++] = (uint8_t)reader.message_size;
				answer[out++] = (uint8_t)(reader.message_size >> 8);
				memcpy(answer + out, buffer, reader.message_size);
				out += reader.message_size;
			}
		}
		break;
	}
	case RAW_FEED: { /* a byte of seconds of silence before each byte of data */
		static uint8_t buffer[QK_SMP_MESSAGE_MAX];
		struct qk_raw_reader reader;
		uint64_t now_us = 0;

		qk_raw_reader_init(&reader, buffer, sizeof buffer);
		for (size_t i = 0; i + 1 < size; i += 2) {
			now_us += exact[i] * 1000000u;
			if (qk_raw_feed(&reader, exact[i + 1], now_us) && out + 2 + reader.message_size < sizeof answer) {
				answer[out++] = (uint8_t)reader.message_size;
				answer[out++] = (uint8_t)(reader.message_size >> 8);
				memcpy(answer + out, buffer, reader.message_size);
				out += reader.message_size;
			}
		}
		break;
	}
	case LINE_BUILD:
		out = qk_line_build(answer, sizeof answer, exact, size);
		break;
	case SMP_HANDLE: {
		uint8_t *reply = malloc(QK_SMP_MESSAGE_MAX);

		out = qk_smp_handle(&server, exact, size, reply);
		memcpy(answer, reply, out);
		free(reply);
		break;
	}
	case SHA256: {
		struct qk_sha256 hash;

		qk_sha256_init(&hash);
		qk_sha256_update(&hash, exact, size / 3);
		qk_sha256_update(&hash, exact + size / 3, size - size / 3);
		qk_sha256_finish(&hash, answer);
		out = QK_SHA256_BYTES;
		break;
	}
	case SHA512: {
		struct qk_sha512 hash;

		qk_sha512_init(&hash);
		qk_sha512_update(&hash, exact, size / 3);
		qk_sha512_update(&hash, exact + size / 3, size - size / 3);
		qk_sha512_finish(&hash, answer);
		out = QK_SHA512_BYTES;
		break;
	}
	case ED25519:
		answer[0] = qk_ed25519_verify(exact, exact + 64, exact + 96, size - 96);
		out = 1;
		break;
	case IMAGE_PARSE: {
		struct qk_image image;

		answer[0] = (uint8_t)qk_image_parse(exact, size, &image);
		out = 1;
		break;
	}
	default:
		break;
	}
	free(exact);
	return out;
}

int main(void)
{
	uint8_t head[5];

	memset(qk_host_flash, 0xff, sizeof qk_host_flash);
	qk_smp_init(&server, &layout, &policy, &(const struct qk_smp_hooks){0}, 0);
	while (fread(head, 1, sizeof head, stdin) == sizeof head) {
		uint32_t size = head[1] | (uint32_t)head[2] << 8 | (uint32_t)head[3] << 16 | (uint32_t)head[4] << 24, out;

		if (size > sizeof body || fread(body, 1, size, stdin) != size) {
			return 2;
		}
		out = (uint32_t)handle(head[0], size);
		(void)fwrite(&out, 1, sizeof out, stdout);
		(void)fwrite(answer, 1, out, stdout);
		(void)fflush(stdout);
	}
	return 0;
}
