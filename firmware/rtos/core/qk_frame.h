/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QK_FRAME_H
#define QK_FRAME_H

#include <stddef.h>
#include <stdint.h>

/* Telemetry frames: 0x00, COBS of header + payload + CRC-32, 0x00. See protocols/stream.toml.
 *
 * The largest frame keeps its COBS group below 0xff (253 bytes), which lets a reader decode many frames in one go.
 * Both delimiters are sent, so a frame stands alone between the lines of another protocol. */

#define QK_FRAME_PAYLOAD_MAX 237u /* 253 - 12 header - 4 CRC */
#define QK_FRAME_WIRE_MAX (2u + 254u)

/* Which stream a frame belongs to: the chip, and the low bits of the boot id. */
static inline uint8_t qk_frame_source(uint8_t chip, uint32_t boot_id)
{
	return (uint8_t)((chip & 0xfu) | (boot_id & 0xfu) << 4);
}

/* Writes the frame to `out` (QK_FRAME_WIRE_MAX bytes); returns its size, 0 if the payload is too large. */
size_t qk_frame_build(uint8_t *out, uint8_t type, uint8_t source, uint16_t seq, uint64_t time_us, const void *payload,
                      size_t size);

/* Checks one run between delimiters (without them) and undoes COBS in place. Returns the size of the payload, which
 * starts at run[12], or -1 for anything that is not a whole frame of this layout. */
int qk_frame_parse(uint8_t *run, size_t size);

#endif
