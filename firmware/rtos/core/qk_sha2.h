/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QK_SHA2_H
#define QK_SHA2_H

#include <stddef.h>
#include <stdint.h>

/* SHA-256 and SHA-512, FIPS 180-4. Written here because the registries carry no small C source of both;
 * tested with the NIST vectors and against a second implementation. */

#define QK_SHA256_BYTES 32u
#define QK_SHA512_BYTES 64u

struct qk_sha256 {
	uint32_t state[8];
	uint64_t size_bytes;
	uint8_t block[64];
};

struct qk_sha512 {
	uint64_t state[8];
	uint64_t size_bytes;
	uint8_t block[128];
};

void qk_sha256_init(struct qk_sha256 *hash);
void qk_sha256_update(struct qk_sha256 *hash, const void *data, size_t size);
void qk_sha256_finish(struct qk_sha256 *hash, uint8_t digest[QK_SHA256_BYTES]);

void qk_sha512_init(struct qk_sha512 *hash);
void qk_sha512_update(struct qk_sha512 *hash, const void *data, size_t size);
void qk_sha512_finish(struct qk_sha512 *hash, uint8_t digest[QK_SHA512_BYTES]);

#endif
