/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QK_ED25519_H
#define QK_ED25519_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define QK_ED25519_KEY_BYTES 32u
#define QK_ED25519_SIGNATURE_BYTES 64u

/* RFC 8032 Ed25519 (SHA-512). Curve arithmetic is Monocypher's; only the hash is ours. */
bool qk_ed25519_verify(const uint8_t signature[QK_ED25519_SIGNATURE_BYTES],
                       const uint8_t public_key[QK_ED25519_KEY_BYTES], const void *message, size_t size);

#endif
