/* SPDX-License-Identifier: Apache-2.0 */
#include "qk_ed25519.h"

#include "monocypher.h"
#include "qk_sha2.h"

bool qk_ed25519_verify(const uint8_t signature[QK_ED25519_SIGNATURE_BYTES],
                       const uint8_t public_key[QK_ED25519_KEY_BYTES], const void *message, size_t size)
{
	struct qk_sha512 hash;
	uint8_t wide[QK_SHA512_BYTES], reduced[32];

	/* h = SHA-512(R || A || M) mod L, then the check that R = s*B - h*A. */
	qk_sha512_init(&hash);
	qk_sha512_update(&hash, signature, 32);
	qk_sha512_update(&hash, public_key, QK_ED25519_KEY_BYTES);
	qk_sha512_update(&hash, message, size);
	qk_sha512_finish(&hash, wide);
	crypto_eddsa_reduce(reduced, wide);
	return crypto_eddsa_check_equation(signature, public_key, reduced) == 0;
}
