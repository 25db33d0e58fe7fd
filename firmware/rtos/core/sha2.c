/* SPDX-License-Identifier: Apache-2.0 */
#include "qk_sha2.h"

#include <string.h>

static const uint32_t k256[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static const uint64_t k512[80] = {
    0x428a2f98d728ae22u, 0x7137449123ef65cdu, 0xb5c0fbcfec4d3b2fu, 0xe9b5dba58189dbbcu, 0x3956c25bf348b538u,
    0x59f111f1b605d019u, 0x923f82a4af194f9bu, 0xab1c5ed5da6d8118u, 0xd807aa98a3030242u, 0x12835b0145706fbeu,
    0x243185be4ee4b28cu, 0x550c7dc3d5ffb4e2u, 0x72be5d74f27b896fu, 0x80deb1fe3b1696b1u, 0x9bdc06a725c71235u,
    0xc19bf174cf692694u, 0xe49b69c19ef14ad2u, 0xefbe4786384f25e3u, 0x0fc19dc68b8cd5b5u, 0x240ca1cc77ac9c65u,
    0x2de92c6f592b0275u, 0x4a7484aa6ea6e483u, 0x5cb0a9dcbd41fbd4u, 0x76f988da831153b5u, 0x983e5152ee66dfabu,
    0xa831c66d2db43210u, 0xb00327c898fb213fu, 0xbf597fc7beef0ee4u, 0xc6e00bf33da88fc2u, 0xd5a79147930aa725u,
    0x06ca6351e003826fu, 0x142929670a0e6e70u, 0x27b70a8546d22ffcu, 0x2e1b21385c26c926u, 0x4d2c6dfc5ac42aedu,
    0x53380d139d95b3dfu, 0x650a73548baf63deu, 0x766a0abb3c77b2a8u, 0x81c2c92e47edaee6u, 0x92722c851482353bu,
    0xa2bfe8a14cf10364u, 0xa81a664bbc423001u, 0xc24b8b70d0f89791u, 0xc76c51a30654be30u, 0xd192e819d6ef5218u,
    0xd69906245565a910u, 0xf40e35855771202au, 0x106aa07032bbd1b8u, 0x19a4c116b8d2d0c8u, 0x1e376c085141ab53u,
    0x2748774cdf8eeb99u, 0x34b0bcb5e19b48a8u, 0x391c0cb3c5c95a63u, 0x4ed8aa4ae3418acbu, 0x5b9cca4f7763e373u,
    0x682e6ff3d6b2b8a3u, 0x748f82ee5defb2fcu, 0x78a5636f43172f60u, 0x84c87814a1f0ab72u, 0x8cc702081a6439ecu,
    0x90befffa23631e28u, 0xa4506cebde82bde9u, 0xbef9a3f7b2c67915u, 0xc67178f2e372532bu, 0xca273eceea26619cu,
    0xd186b8c721c0c207u, 0xeada7dd6cde0eb1eu, 0xf57d4f7fee6ed178u, 0x06f067aa72176fbau, 0x0a637dc5a2c898a6u,
    0x113f9804bef90daeu, 0x1b710b35131c471bu, 0x28db77f523047d84u, 0x32caab7b40c72493u, 0x3c9ebe0a15c9bebcu,
    0x431d67c49c100d4cu, 0x4cc5d4becb3e42b6u, 0x597f299cfc657e2au, 0x5fcb6fab3ad6faecu, 0x6c44198c4a475817u,
};

static uint32_t rotate32(uint32_t x, unsigned n)
{
	return (x >> n) | (x << (32u - n));
}

static uint64_t rotate64(uint64_t x, unsigned n)
{
	return (x >> n) | (x << (64u - n));
}

static void compress256(uint32_t state[8], const uint8_t block[64])
{
	uint32_t w[64], v[8];

	for (unsigned i = 0; i < 16; i++) {
		w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8 |
		       block[4 * i + 3];
	}
	for (unsigned i = 16; i < 64; i++) {
		uint32_t s0 = rotate32(w[i - 15], 7) ^ rotate32(w[i - 15], 18) ^ (w[i - 15] >> 3);
		uint32_t s1 = rotate32(w[i - 2], 17) ^ rotate32(w[i - 2], 19) ^ (w[i - 2] >> 10);

		w[i] = w[i - 16] + s0 + w[i - 7] + s1;
	}
	memcpy(v, state, sizeof v);
	for (unsigned i = 0; i < 64; i++) {
		uint32_t s1 = rotate32(v[4], 6) ^ rotate32(v[4], 11) ^ rotate32(v[4], 25);
		uint32_t t1 = v[7] + s1 + ((v[4] & v[5]) ^ (~v[4] & v[6])) + k256[i] + w[i];
		uint32_t s0 = rotate32(v[0], 2) ^ rotate32(v[0], 13) ^ rotate32(v[0], 22);
		uint32_t t2 = s0 + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));

		memmove(&v[1], &v[0], 7 * sizeof v[0]);
		v[4] += t1;
		v[0] = t1 + t2;
	}
	for (unsigned i = 0; i < 8; i++) {
		state[i] += v[i];
	}
}

static void compress512(uint64_t state[8], const uint8_t block[128])
{
	uint64_t w[80], v[8];

	for (unsigned i = 0; i < 16; i++) {
		w[i] = 0;
		for (unsigned j = 0; j < 8; j++) {
			w[i] = w[i] << 8 | block[8 * i + j];
		}
	}
	for (unsigned i = 16; i < 80; i++) {
		uint64_t s0 = rotate64(w[i - 15], 1) ^ rotate64(w[i - 15], 8) ^ (w[i - 15] >> 7);
		uint64_t s1 = rotate64(w[i - 2], 19) ^ rotate64(w[i - 2], 61) ^ (w[i - 2] >> 6);

		w[i] = w[i - 16] + s0 + w[i - 7] + s1;
	}
	memcpy(v, state, sizeof v);
	for (unsigned i = 0; i < 80; i++) {
		uint64_t s1 = rotate64(v[4], 14) ^ rotate64(v[4], 18) ^ rotate64(v[4], 41);
		uint64_t t1 = v[7] + s1 + ((v[4] & v[5]) ^ (~v[4] & v[6])) + k512[i] + w[i];
		uint64_t s0 = rotate64(v[0], 28) ^ rotate64(v[0], 34) ^ rotate64(v[0], 39);
		uint64_t t2 = s0 + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));

		memmove(&v[1], &v[0], 7 * sizeof v[0]);
		v[4] += t1;
		v[0] = t1 + t2;
	}
	for (unsigned i = 0; i < 8; i++) {
		state[i] += v[i];
	}
}

void qk_sha256_init(struct qk_sha256 *hash)
{
	static const uint32_t start[8] = {
	    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
	};

	memcpy(hash->state, start, sizeof start);
	hash->size_bytes = 0;
}

void qk_sha256_update(struct qk_sha256 *hash, const void *data, size_t size)
{
	const uint8_t *from = data;

	while (size) {
		size_t used = hash->size_bytes % sizeof hash->block;
		size_t take = sizeof hash->block - used;

		if (take > size) {
			take = size;
		}
		memcpy(&hash->block[used], from, take);
		hash->size_bytes += take;
		from += take;
		size -= take;
		if (used + take == sizeof hash->block) {
			compress256(hash->state, hash->block);
		}
	}
}

void qk_sha256_finish(struct qk_sha256 *hash, uint8_t digest[QK_SHA256_BYTES])
{
	uint64_t bits = hash->size_bytes * 8u;
	uint8_t pad[72] = {0x80};
	size_t used = hash->size_bytes % sizeof hash->block;
	size_t zeros = (used < 56 ? 56 : 120) - used;

	for (unsigned i = 0; i < 8; i++) {
		pad[zeros + i] = (uint8_t)(bits >> (56 - 8 * i));
	}
	qk_sha256_update(hash, pad, zeros + 8);
	for (unsigned i = 0; i < QK_SHA256_BYTES; i++) {
		digest[i] = (uint8_t)(hash->state[i / 4] >> (24 - 8 * (i % 4)));
	}
}

void qk_sha512_init(struct qk_sha512 *hash)
{
	static const uint64_t start[8] = {
	    0x6a09e667f3bcc908u, 0xbb67ae8584caa73bu, 0x3c6ef372fe94f82bu, 0xa54ff53a5f1d36f1u,
	    0x510e527fade682d1u, 0x9b05688c2b3e6c1fu, 0x1f83d9abfb41bd6bu, 0x5be0cd19137e2179u,
	};

	memcpy(hash->state, start, sizeof start);
	hash->size_bytes = 0;
}

void qk_sha512_update(struct qk_sha512 *hash, const void *data, size_t size)
{
	const uint8_t *from = data;

	while (size) {
		size_t used = hash->size_bytes % sizeof hash->block;
		size_t take = sizeof hash->block - used;

		if (take > size) {
			take = size;
		}
		memcpy(&hash->block[used], from, take);
		hash->size_bytes += take;
		from += take;
		size -= take;
		if (used + take == sizeof hash->block) {
			compress512(hash->state, hash->block);
		}
	}
}

void qk_sha512_finish(struct qk_sha512 *hash, uint8_t digest[QK_SHA512_BYTES])
{
	uint64_t bits = hash->size_bytes * 8u;
	uint8_t pad[144] = {0x80};
	size_t used = hash->size_bytes % sizeof hash->block;
	size_t zeros = (used < 112 ? 112 : 240) - used;

	/* The length is 128 bits wide; nothing here hashes more than 2^61 bytes, so the upper half stays zero. */
	for (unsigned i = 0; i < 8; i++) {
		pad[zeros + 8 + i] = (uint8_t)(bits >> (56 - 8 * i));
	}
	qk_sha512_update(hash, pad, zeros + 16);
	for (unsigned i = 0; i < QK_SHA512_BYTES; i++) {
		digest[i] = (uint8_t)(hash->state[i / 8] >> (56 - 8 * (i % 8)));
	}
}
