/* SPDX-License-Identifier: Apache-2.0 */
#include "qk_image.h"

#include <string.h>

#include "qk_ed25519.h"
#include "qk_sha2.h"

#define MAGIC 0x96f3b83du
#define HEADER_BYTES 32u
#define TLV_INFO_BYTES 4u
#define TLV_MAGIC 0x6907u
#define TLV_PROTECTED_MAGIC 0x6908u
#define FLAG_RAM_LOAD 0x20u
#define FLAG_ROM_FIXED 0x100u

#define TLV_KEY_HASH 0x01u
#define TLV_SHA256 0x10u
#define TLV_ED25519 0x24u
#define TLV_DEPENDENCY 0x40u
#define TLV_SECURITY_COUNTER 0x50u
#define TLV_BOARD 0xa0u /* vendor range: name of the board, UTF-8 without NUL */

#define DEPENDENCY_BYTES 12u /* struct image_dependency: image, 3 bytes of padding, version of 8 bytes */
#define AR1_IMAGE 1u

struct tlvs {
	const uint8_t *hash, *key_hash, *signature, *board, *ar1_min;
	size_t board_bytes;
	uint32_t security_counter;
	bool has_counter;
};

static uint16_t get16(const uint8_t *from)
{
	return (uint16_t)(from[0] | from[1] << 8);
}

static uint32_t get32(const uint8_t *from)
{
	return from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 | (uint32_t)from[3] << 24;
}

static struct qk_image_version get_version(const uint8_t *from)
{
	return (struct qk_image_version){
	    .major = from[0], .minor = from[1], .revision = get16(from + 2), .build = get32(from + 4)};
}

/* One TLV area at `at`. Returns its size, 0 if it is not whole. Board and counter count only where they are signed. */
static size_t read_area(const uint8_t *at, size_t room, uint16_t magic, struct tlvs *tlvs)
{
	size_t total, used = TLV_INFO_BYTES;

	if (room < TLV_INFO_BYTES || get16(at) != magic) {
		return 0;
	}
	total = get16(at + 2);
	if (total < TLV_INFO_BYTES || total > room) {
		return 0;
	}
	while (used < total) {
		const uint8_t *entry = at + used;
		size_t size;

		if (total - used < 4u) {
			return 0;
		}
		size = get16(entry + 2);
		if (size > total - used - 4u) {
			return 0;
		}
		switch (get16(entry)) {
		case TLV_SHA256:
			tlvs->hash = size == QK_SHA256_BYTES ? entry + 4 : NULL;
			break;
		case TLV_KEY_HASH:
			tlvs->key_hash = size == QK_SHA256_BYTES ? entry + 4 : NULL;
			break;
		case TLV_ED25519:
			tlvs->signature = size == QK_ED25519_SIGNATURE_BYTES ? entry + 4 : NULL;
			break;
		case TLV_SECURITY_COUNTER:
			if (magic == TLV_PROTECTED_MAGIC && size == 4u) {
				tlvs->security_counter = get32(entry + 4);
				tlvs->has_counter = true;
			}
			break;
		case TLV_DEPENDENCY:
			if (magic == TLV_PROTECTED_MAGIC && size == DEPENDENCY_BYTES && entry[4] == AR1_IMAGE) {
				tlvs->ar1_min = entry + 8;
			}
			break;
		case TLV_BOARD:
			if (magic == TLV_PROTECTED_MAGIC) {
				tlvs->board = entry + 4;
				tlvs->board_bytes = size;
			}
			break;
		default:
			break;
		}
		used += 4u + size;
	}
	return total;
}

static enum qk_image_verdict parse(const uint8_t *slot, size_t slot_bytes, struct qk_image *image, struct tlvs *tlvs)
{
	size_t header, payload, protected_bytes, end, area;
	struct qk_sha256 hash;
	uint8_t digest[QK_SHA256_BYTES];

	memset(image, 0, sizeof *image);
	memset(tlvs, 0, sizeof *tlvs);
	if (slot_bytes < HEADER_BYTES || get32(slot) != MAGIC) {
		return QK_IMAGE_ABSENT;
	}
	header = get16(slot + 8);
	protected_bytes = get16(slot + 10);
	payload = get32(slot + 12);
	if (header < HEADER_BYTES || header > slot_bytes || payload > slot_bytes - header ||
	    protected_bytes > slot_bytes - header - payload || (get32(slot + 16) & ~(FLAG_RAM_LOAD | FLAG_ROM_FIXED))) {
		return QK_IMAGE_MALFORMED;
	}
	end = header + payload;
	if (protected_bytes) {
		if (read_area(slot + end, slot_bytes - end, TLV_PROTECTED_MAGIC, tlvs) != protected_bytes) {
			return QK_IMAGE_MALFORMED;
		}
		end += protected_bytes;
	}
	area = read_area(slot + end, slot_bytes - end, TLV_MAGIC, tlvs);
	if (!area || !tlvs->hash) {
		return QK_IMAGE_MALFORMED;
	}
	image->version = get_version(slot + 20);
	if (tlvs->ar1_min) {
		image->ar1_min = get_version(tlvs->ar1_min);
	}
	image->load_address = (get32(slot + 16) & FLAG_RAM_LOAD) ? get32(slot + 4) : 0;
	image->header_bytes = (uint32_t)header;
	image->copy_bytes = (uint32_t)(header + payload);
	image->total_bytes = (uint32_t)(end + area);
	image->security_counter = tlvs->has_counter ? tlvs->security_counter : 0;
	memcpy(image->hash, tlvs->hash, sizeof image->hash);

	qk_sha256_init(&hash);
	qk_sha256_update(&hash, slot, end);
	qk_sha256_finish(&hash, digest);
	return memcmp(digest, image->hash, sizeof digest) ? QK_IMAGE_HASH_WRONG : QK_IMAGE_OK;
}

enum qk_image_verdict qk_image_parse(const uint8_t *slot, size_t slot_bytes, struct qk_image *image)
{
	struct tlvs tlvs;

	return parse(slot, slot_bytes, image, &tlvs);
}

void qk_image_key_hash(const uint8_t *public_key, uint8_t digest[QK_IMAGE_HASH_BYTES])
{
	static const uint8_t prefix[12] = {0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00};
	struct qk_sha256 hash;

	qk_sha256_init(&hash);
	qk_sha256_update(&hash, prefix, sizeof prefix);
	qk_sha256_update(&hash, public_key, QK_ED25519_KEY_BYTES);
	qk_sha256_finish(&hash, digest);
}

static bool key_matches(const uint8_t *key_hash, const uint8_t *public_key)
{
	uint8_t digest[QK_IMAGE_HASH_BYTES];

	qk_image_key_hash(public_key, digest);
	return memcmp(digest, key_hash, sizeof digest) == 0;
}

enum qk_image_verdict qk_image_check(const uint8_t *slot, size_t slot_bytes, const struct qk_image_policy *policy,
                                     struct qk_image *image)
{
	struct tlvs tlvs;
	enum qk_image_verdict verdict = parse(slot, slot_bytes, image, &tlvs);

	if (verdict != QK_IMAGE_OK) {
		return verdict;
	}
	if (!tlvs.key_hash || !tlvs.signature || !key_matches(tlvs.key_hash, policy->public_key)) {
		return QK_IMAGE_KEY_WRONG;
	}
	if (!qk_ed25519_verify(tlvs.signature, policy->public_key, image->hash, sizeof image->hash)) {
		return QK_IMAGE_SIGNATURE_WRONG;
	}
	if (!tlvs.board || tlvs.board_bytes != strlen(policy->board) ||
	    memcmp(tlvs.board, policy->board, tlvs.board_bytes) != 0) {
		return QK_IMAGE_BOARD_WRONG;
	}
	if (image->security_counter < policy->security_counter_min) {
		return QK_IMAGE_COUNTER_OLD;
	}
	if (image->load_address != policy->load_address || image->copy_bytes > policy->load_bytes_max) {
		return QK_IMAGE_MALFORMED;
	}
	return QK_IMAGE_OK;
}

bool qk_image_ar1_fits(const struct qk_image *image, const struct qk_image_policy *policy)
{
	const struct qk_image_version *v = &image->ar1_min;

	return policy->ar1_version >= ((uint32_t)v->major << 24 | (uint32_t)v->minor << 16 | v->revision);
}

const char *qk_image_verdict_text(enum qk_image_verdict verdict)
{
	switch (verdict) {
	case QK_IMAGE_OK:
		return "ok";
	case QK_IMAGE_ABSENT:
		return "no image";
	case QK_IMAGE_MALFORMED:
		return "malformed image";
	case QK_IMAGE_HASH_WRONG:
		return "image hash differs";
	case QK_IMAGE_KEY_WRONG:
		return "signed with another key";
	case QK_IMAGE_SIGNATURE_WRONG:
		return "signature does not verify";
	case QK_IMAGE_BOARD_WRONG:
		return "made for another board";
	case QK_IMAGE_COUNTER_OLD:
		return "security counter is older than the device's";
	case QK_IMAGE_AR1_OLD:
		return "needs a newer AR1 image";
	}
	return "?";
}
