/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QK_IMAGE_H
#define QK_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* MCUboot image format: 32-byte header, payload, protected and unprotected TLV areas.
 * Source: MCUboot design document, "Image Format". Every byte is an attacker's until the signature is checked. */

#define QK_IMAGE_HASH_BYTES 32u
#define QK_IMAGE_BOARD_MAX 16u

struct qk_image_version {
	uint8_t major, minor;
	uint16_t revision;
	uint32_t build;
};

struct qk_image {
	struct qk_image_version version;
	uint32_t load_address;
	uint32_t header_bytes;
	uint32_t copy_bytes; /* header and payload: what is copied to RAM */
	uint32_t total_bytes;
	uint32_t security_counter;
	struct qk_image_version ar1_min; /* least version of the AR1's image; all 0: any */
	uint8_t hash[QK_IMAGE_HASH_BYTES];
};

/* What an image must fulfil to be started on this board. */
struct qk_image_policy {
	const char *board;
	const uint8_t *public_key; /* Ed25519, 32 bytes */
	uint32_t load_address;
	uint32_t load_bytes_max;
	uint32_t security_counter_min;
	uint32_t ar1_version; /* major << 24 | minor << 16 | revision of what the AR1 runs; 0: it has not said */
};

enum qk_image_verdict {
	QK_IMAGE_OK,
	QK_IMAGE_ABSENT,
	QK_IMAGE_MALFORMED,
	QK_IMAGE_HASH_WRONG,
	QK_IMAGE_KEY_WRONG,
	QK_IMAGE_SIGNATURE_WRONG,
	QK_IMAGE_BOARD_WRONG,
	QK_IMAGE_COUNTER_OLD,
	QK_IMAGE_AR1_OLD,
};

/* Checks everything, hash and signature included. Fields of `image` hold only when the verdict is QK_IMAGE_OK. */
enum qk_image_verdict qk_image_check(const uint8_t *slot, size_t slot_bytes, const struct qk_image_policy *policy,
                                     struct qk_image *image);

/* Does the AR1 run what the image needs? Asked before a test boot only: what is confirmed starts whatever the AR1 runs,
 * since a device that starts nothing helps nobody. */
bool qk_image_ar1_fits(const struct qk_image *image, const struct qk_image_policy *policy);

/* Reads header and TLVs and compares the hash, without signature: for listings. */
enum qk_image_verdict qk_image_parse(const uint8_t *slot, size_t slot_bytes, struct qk_image *image);

/* SHA-256 of an Ed25519 key as SubjectPublicKeyInfo: what imgtool puts into the key hash TLV. */
void qk_image_key_hash(const uint8_t *public_key, uint8_t digest[QK_IMAGE_HASH_BYTES]);

const char *qk_image_verdict_text(enum qk_image_verdict verdict);

#endif
