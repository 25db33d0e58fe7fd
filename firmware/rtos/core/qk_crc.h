/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QK_CRC_H
#define QK_CRC_H

#include <stddef.h>
#include <stdint.h>

/* CRC-32 as in zlib: qk_crc32(qk_crc32(0, a), b) is the CRC of a followed by b. */
uint32_t qk_crc32(uint32_t crc, const void *data, size_t size);

/* CRC-16/XMODEM (polynomial 0x1021, start 0), as SMP over serial uses it. */
uint16_t qk_crc16(uint16_t crc, const void *data, size_t size);

#endif
