/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "qk_boot.h"
#include "qk_check.h"
#include "qk_ed25519.h"
#include "qk_flash.h"
#include "qk_host_flash.h"
#include "qk_smp.h"
#include "qk_telemetry.h"

/* Cuts the power before, in the middle of and after every flash operation of an update's life: upload, request, start,
 * confirm, revert, and the turn of the state sectors. After each cut the device boots (and that boot is cut, too), and
 * always: something signed and confirmed runs, or a trial that was asked for; nothing older than what was confirmed;
 * and the same update, done again, succeeds.
 *
 * Arguments: public key, then signed images 1, 2 (newer) and 3 (newer, higher security counter, needs AR1 1.2.0), bytes
 * of a chunk: the smaller, the more operations. */

#define CHUNK_MAX 1024u
#define SLOT_BYTES 0x2000u
#define AR1_VERSION 0x02000000u
#define USED_BYTES (3u * SLOT_BYTES) /* of the flash: what has to be put back after a cut */

static const struct qk_boot_layout layout = {.slot_offset = {0, SLOT_BYTES},
                                             .slot_bytes = SLOT_BYTES,
                                             .state_offset = {2 * SLOT_BYTES, 2 * SLOT_BYTES + 0x1000}};
static size_t chunk;
static uint8_t public_key[32];
static struct qk_image_policy policy = {.board = "s1-virtual",
                                        .public_key = public_key,
                                        .load_address = 0x01000000,
                                        .load_bytes_max = 0x200000,
                                        .ar1_version = AR1_VERSION};

struct file {
	uint8_t data[SLOT_BYTES];
	size_t size;
	struct qk_image image;
};
static struct file files[3];
static unsigned long cuts;

/* --- the same signature over and over: remembered, since checking one takes longer than all else ---------------------
 */

bool __real_qk_ed25519_verify(const uint8_t *signature, const uint8_t *key, const void *message, size_t size);
bool __wrap_qk_ed25519_verify(const uint8_t *signature, const uint8_t *key, const void *message, size_t size);

bool __wrap_qk_ed25519_verify(const uint8_t *signature, const uint8_t *key, const void *message, size_t size)
{
	static struct {
		uint8_t signature[QK_ED25519_SIGNATURE_BYTES], key[QK_ED25519_KEY_BYTES], message[QK_IMAGE_HASH_BYTES];
	} good[8];
	static unsigned count;

	CHECK(size == sizeof good[0].message);
	for (unsigned i = 0; i < count; i++) {
		if (!memcmp(good[i].signature, signature, sizeof good[i].signature) &&
		    !memcmp(good[i].key, key, sizeof good[i].key) && !memcmp(good[i].message, message, size)) {
			return true;
		}
	}
	if (!__real_qk_ed25519_verify(signature, key, message, size)) {
		return false;
	}
	CHECK(count < sizeof good / sizeof good[0]);
	memcpy(good[count].signature, signature, sizeof good[count].signature);
	memcpy(good[count].key, key, sizeof good[count].key);
	memcpy(good[count++].message, message, size);
	return true;
}

static void load(struct file *file, const char *path)
{
	FILE *stream = fopen(path, "rb");

	CHECK(stream);
	file->size = fread(file->data, 1, sizeof file->data, stream);
	fclose(stream);
	CHECK(qk_image_check(file->data, file->size, &policy, &file->image) == QK_IMAGE_OK);
}

/* --- the life of an update, as the firmware does it ------------------------------------------------------------------
 */

static struct qk_smp_server server;

static size_t put_request(uint8_t *out, uint8_t group, uint8_t id, const uint8_t *body, size_t size)
{
	const uint8_t header[8] = {0x0a, 0, (uint8_t)(size >> 8), (uint8_t)size, 0, group, 1, id};

	memcpy(out, header, sizeof header);
	memcpy(out + sizeof header, body, size);
	return sizeof header + size;
}

static bool ask(uint8_t id, struct qk_cbor_writer *body, uint8_t *start)
{
	static uint8_t request[2048], response[QK_SMP_MESSAGE_MAX];
	size_t size = put_request(request, 1, id, start, (size_t)(body->at - start));

	size = qk_smp_handle(&server, request, size, response);
	CHECK(size > 8);
	/* {"rc": n} with n > 0 is a refusal; everything else is an answer. */
	return !(size >= 13 && response[9] == 0x62 && response[10] == 'r' && response[11] == 'c' && response[12] != 0);
}

static bool upload(const struct file *file)
{
	for (size_t at = 0; at < file->size; at += chunk) {
		uint8_t body[CHUNK_MAX + 64];
		struct qk_cbor_writer writer = {body, body + sizeof body, false};
		size_t left = file->size - at;

		qk_cbor_open_map(&writer);
		qk_cbor_pair_uint(&writer, "off", at);
		if (at == 0) {
			qk_cbor_pair_uint(&writer, "len", file->size);
		}
		qk_cbor_pair_bytes(&writer, "data", file->data + at, left < chunk ? left : chunk);
		qk_cbor_close(&writer);
		CHECK(!writer.full);
		if (!ask(1, &writer, body)) {
			return false;
		}
	}
	return true;
}

static bool choose(const struct file *file, bool confirm)
{
	uint8_t body[64];
	struct qk_cbor_writer writer = {body, body + sizeof body, false};

	qk_cbor_open_map(&writer);
	qk_cbor_pair_bytes(&writer, "hash", file->image.hash, sizeof file->image.hash);
	qk_cbor_pair_bool(&writer, "confirm", confirm);
	qk_cbor_close(&writer);
	return ask(0, &writer, body);
}

static struct qk_boot_decision boot(void)
{
	struct qk_boot_decision decision;

	qk_boot_decide(&layout, &policy, QK_ROLLBACK_REASON_NOT_CONFIRMED, &decision);
	qk_smp_init(&server, &layout, &policy, &(const struct qk_smp_hooks){0}, decision.slot);
	return decision;
}

static int index_of(const struct qk_image *image)
{
	for (int i = 0; i < 3; i++) {
		if (!memcmp(image->hash, files[i].image.hash, sizeof image->hash)) {
			return i;
		}
	}
	return -1;
}

/* Update to `file` and confirm it, or let its trial end in a reset. */
static void update(const struct file *file, bool confirm)
{
	struct qk_boot_decision decision = boot();

	if (!memcmp(decision.image.hash, file->image.hash, sizeof file->image.hash)) {
		if (decision.image_state != QK_IMAGE_STATE_TRIAL) {
			return; /* a cut came after the confirmation: nothing left to do */
		}
	} else {
		CHECK(upload(file) && choose(file, false));
		decision = boot();
		CHECK(index_of(&decision.image) == (int)(file - files) && decision.image_state == QK_IMAGE_STATE_TRIAL);
	}
	if (confirm) {
		CHECK(choose(file, true));
	}
	decision = boot();
	CHECK((index_of(&decision.image) == (int)(file - files)) == confirm);
	CHECK(decision.image_state == QK_IMAGE_STATE_CONFIRMED);
	CHECK(confirm || decision.rollback_reason == QK_ROLLBACK_REASON_NOT_CONFIRMED);
}

/* --- cuts ------------------------------------------------------------------------------------------------------------
 */

/* After any cut: what boots is one of the images that may be there, and booting again changes nothing more. */
static void must_boot(int oldest, int newest)
{
	struct qk_boot_decision decision = boot(), again;
	struct qk_boot_state state;
	int found = decision.slot == QK_SLOT_NONE ? -1 : index_of(&decision.image);

	CHECK(found >= oldest && found <= newest);
	CHECK(decision.image_state != QK_IMAGE_STATE_FALLBACK);
	again = boot(); /* a trial that was started is over now */
	CHECK(again.slot != QK_SLOT_NONE && again.image_state == QK_IMAGE_STATE_CONFIRMED);
	CHECK(index_of(&again.image) >= oldest && index_of(&again.image) <= newest);
	CHECK(decision.image_state == QK_IMAGE_STATE_TRIAL || again.slot == decision.slot);
	/* One truth: the record, what it names, and what runs are the same. */
	qk_boot_state_load(&layout, &state);
	CHECK(state.seq && state.confirmed_slot == again.slot && state.trial_phase == QK_TRIAL_IDLE);
	CHECK(state.security_counter >= files[oldest].image.security_counter);
}

static bool cut(void (*run)(void), uint32_t at, enum qk_host_cut_part part)
{
	qk_host_operations = 0;
	qk_host_cut_at = at;
	qk_host_cut_part = part;
	if (setjmp(qk_host_power_lost) == 0) {
		run();
		qk_host_cut_at = UINT32_MAX;
		return false;
	}
	qk_host_cut_at = UINT32_MAX;
	cuts++;
	return true;
}

static void boot_once(void)
{
	(void)boot();
}

/* Every operation of `run` is cut, and every operation of the boot after it. Then `run` is done again, to its end. */
static void cut_everywhere(void (*run)(void), int oldest, int newest)
{
	static uint8_t before[USED_BYTES], after_cut[USED_BYTES];

	memcpy(before, qk_host_flash, sizeof before);
	for (uint32_t at = 0;; at++) {
		bool was_cut = false;

		for (enum qk_host_cut_part part = QK_CUT_BEFORE; part <= QK_CUT_AFTER; part++) {
			memcpy(qk_host_flash, before, sizeof before);
			was_cut = cut(run, at, part);
			if (!was_cut) {
				break;
			}
			memcpy(after_cut, qk_host_flash, sizeof after_cut);
			for (uint32_t second = 0;; second++) {
				bool boot_was_cut = false;

				for (enum qk_host_cut_part p = QK_CUT_BEFORE; p <= QK_CUT_AFTER; p++) {
					memcpy(qk_host_flash, after_cut, sizeof after_cut);
					boot_was_cut = cut(boot_once, second, p);
					must_boot(oldest, newest);
				}
				if (!boot_was_cut) {
					break;
				}
			}
			run();
		}
		if (!was_cut) {
			return; /* `run` came to its end without being cut: all operations were tried */
		}
	}
}

static void update_to_2(void)
{
	update(&files[1], true);
}

static void try_2_in_vain(void)
{
	update(&files[1], false);
}

static void update_to_3(void)
{
	update(&files[2], true);
}

/* A trial that was asked for and is withdrawn, because its slot is written again. */
static void change_of_mind(void)
{
	struct qk_boot_decision decision = boot();

	if (index_of(&decision.image) == 0) {
		CHECK(upload(&files[1]) && choose(&files[1], false));
		CHECK(upload(&files[2]));
	}
	update(&files[2], true);
}

static void erase_and_update_to_2(void)
{
	struct qk_boot_decision decision = boot();
	uint8_t body[8];
	struct qk_cbor_writer writer = {body, body + sizeof body, false};

	if (index_of(&decision.image) == 0) {
		qk_cbor_open_map(&writer);
		qk_cbor_close(&writer);
		CHECK(ask(5, &writer, body));
	}
	update(&files[1], true);
}

/* A device from the factory, whose state log has seen `turns` updates: near 128 the sectors change roles. */
static void factory(unsigned turns)
{
	struct qk_boot_state state;

	memset(qk_host_flash, 0xff, sizeof qk_host_flash);
	memcpy(qk_host_flash + layout.slot_offset[0], files[0].data, files[0].size);
	(void)boot();
	for (unsigned i = 0; i < turns; i++) {
		qk_boot_state_load(&layout, &state);
		CHECK(qk_boot_state_append(&layout, &state));
	}
}

static void a_first_update_survives_every_cut(void)
{
	factory(0);
	cut_everywhere(update_to_2, 0, 1);
}

static void a_reverted_update_survives_every_cut(void)
{
	factory(0);
	cut_everywhere(try_2_in_vain, 0, 1);
}

static void a_withdrawn_trial_survives_every_cut(void)
{
	factory(0);
	cut_everywhere(change_of_mind, 0, 2);
}

static void an_erased_slot_survives_every_cut(void)
{
	factory(0);
	cut_everywhere(erase_and_update_to_2, 0, 1);
}

static void the_turn_of_the_state_sectors_survives_every_cut(void)
{
	for (unsigned turns = 123; turns <= 128; turns++) {
		factory(turns);
		cut_everywhere(update_to_2, 0, 1);
	}
	factory(250);
	cut_everywhere(update_to_2, 0, 1);
}

static void a_confirmed_update_is_never_followed_by_an_older_image(void)
{
	factory(0);
	update_to_2();
	cut_everywhere(update_to_3, 1, 2);
}

static void an_older_security_counter_is_refused(void)
{
	struct qk_boot_decision decision;

	factory(0);
	update_to_3(); /* counter rises */
	CHECK(upload(&files[1]));
	CHECK(!choose(&files[1], false));
	decision = boot();
	CHECK(index_of(&decision.image) == 2);
}

static void a_damaged_confirmed_image_falls_back_and_says_so(void)
{
	struct qk_boot_decision decision;

	factory(0);
	update_to_2(); /* slot B is confirmed, slot A holds image 1 */
	qk_host_flash[layout.slot_offset[1] + 2000] ^= 1;
	decision = boot();
	CHECK(decision.slot == 0 && decision.image_state == QK_IMAGE_STATE_FALLBACK);
	CHECK(decision.rollback_reason == QK_ROLLBACK_REASON_CONFIRMED_IMAGE_LOST);
	qk_host_flash[layout.slot_offset[0] + 2000] ^= 1;
	decision = boot();
	CHECK(decision.slot == QK_SLOT_NONE);
}

static void the_way_back_is_not_overwritten_during_a_trial(void)
{
	factory(0);
	(void)boot();
	CHECK(upload(&files[1]) && choose(&files[1], false));
	(void)boot();
	CHECK(!upload(&files[2]));
}

static void every_flipped_bit_of_an_image_is_refused(void)
{
	struct qk_image image;

	for (size_t at = 0; at < files[0].size; at++) {
		/* Header and TLVs bit by bit, the payload a bit in each byte of a sample. */
		bool edge = at < 32 || at + 240 > files[0].size;

		if (!edge && at % 97) {
			continue;
		}
		for (unsigned bit = 0; bit < (edge ? 8u : 1u); bit++) {
			files[0].data[at] ^= (uint8_t)(1u << bit);
			CHECK(qk_image_check(files[0].data, files[0].size, &policy, &image) != QK_IMAGE_OK);
			files[0].data[at] ^= (uint8_t)(1u << bit);
		}
	}
	for (size_t size = 0; size < files[0].size; size += size < 64 ? 1 : 61) {
		CHECK(qk_image_check(files[0].data, size, &policy, &image) != QK_IMAGE_OK);
	}
}

static void an_image_that_needs_a_newer_ar1_is_refused_but_starts_once_confirmed(void)
{
	struct qk_boot_decision decision;

	factory(0);
	(void)boot();
	policy.ar1_version = 0x0101ffffu; /* image 3 needs 1.2.0 */
	CHECK(upload(&files[2]) && !choose(&files[2], false));
	CHECK(qk_boot_request_trial(&layout, &policy, 1) == QK_IMAGE_AR1_OLD);
	policy.ar1_version = 0x01020000u;
	CHECK(choose(&files[2], false));
	policy.ar1_version = 0; /* the AR1 was set back in between */
	decision = boot();
	CHECK(index_of(&decision.image) == 0 && decision.rollback_reason == QK_ROLLBACK_REASON_BAD_IMAGE);
	policy.ar1_version = 0x01020001u;
	update_to_3();
	policy.ar1_version = 0;
	decision = boot();
	CHECK(index_of(&decision.image) == 2 && decision.image_state == QK_IMAGE_STATE_CONFIRMED);
	policy.ar1_version = AR1_VERSION;
}

static void another_key_or_board_is_refused(void)
{
	struct qk_image_policy other = policy;
	struct qk_image image;
	uint8_t key[32];

	memcpy(key, public_key, sizeof key);
	key[5] ^= 1;
	other.public_key = key;
	CHECK(qk_image_check(files[0].data, files[0].size, &other, &image) == QK_IMAGE_KEY_WRONG);
	other = policy;
	other.board = "g1-virtual";
	CHECK(qk_image_check(files[0].data, files[0].size, &other, &image) == QK_IMAGE_BOARD_WRONG);
	other = policy;
	other.security_counter_min = files[0].image.security_counter + 1;
	CHECK(qk_image_check(files[0].data, files[0].size, &other, &image) == QK_IMAGE_COUNTER_OLD);
}

int main(int argc, char **argv)
{
	CHECK(argc == 6);
	chunk = (size_t)atoi(argv[5]);
	CHECK(chunk >= 32 && chunk <= CHUNK_MAX);
	for (unsigned i = 0; i < 32; i++) {
		unsigned byte;

		CHECK(sscanf(argv[1] + 2 * i, "%2x", &byte) == 1);
		public_key[i] = (uint8_t)byte;
	}
	for (unsigned i = 0; i < 3; i++) {
		load(&files[i], argv[2 + i]);
	}
	RUN(every_flipped_bit_of_an_image_is_refused);
	RUN(another_key_or_board_is_refused);
	RUN(an_older_security_counter_is_refused);
	RUN(an_image_that_needs_a_newer_ar1_is_refused_but_starts_once_confirmed);
	RUN(a_damaged_confirmed_image_falls_back_and_says_so);
	RUN(the_way_back_is_not_overwritten_during_a_trial);
	RUN(a_first_update_survives_every_cut);
	RUN(a_reverted_update_survives_every_cut);
	RUN(a_confirmed_update_is_never_followed_by_an_older_image);
	RUN(a_withdrawn_trial_survives_every_cut);
	RUN(an_erased_slot_survives_every_cut);
	RUN(the_turn_of_the_state_sectors_survives_every_cut);
	printf("%lu power cuts survived\n", cuts);
	return 0;
}
