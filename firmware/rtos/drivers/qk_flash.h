/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QK_FLASH_H
#define QK_FLASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* NOR flash, memory mapped for reading. Erase sets a whole sector to 0xff; programming can only clear bits.
 * Offsets count from the start of the flash. Functions return false when the range is wrong or, after reading back,
 * when the cells do not hold what was asked. */

#define QK_FLASH_SECTOR_BYTES 4096u

const uint8_t *qk_flash_map(uint32_t offset);
bool qk_flash_erase(uint32_t offset);
bool qk_flash_program(uint32_t offset, const void *data, size_t size);

#endif
