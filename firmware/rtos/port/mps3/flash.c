/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "qk_flash.h"
#include "regs.h"

/* The board has no writable flash: its DDR is a file on the host and plays the part. The rules of NOR flash are kept
 * here and nowhere else. */

#define FLASH_BYTES 0x00210000u

static volatile uint8_t *cell(uint32_t offset)
{
	return (volatile uint8_t *)(uintptr_t)(FLASH_BASE + offset);
}

const uint8_t *qk_flash_map(uint32_t offset)
{
	return (const uint8_t *)(uintptr_t)(FLASH_BASE + offset);
}

bool qk_flash_erase(uint32_t offset)
{
	if (offset % QK_FLASH_SECTOR_BYTES || offset > FLASH_BYTES - QK_FLASH_SECTOR_BYTES) {
		return false;
	}
	for (uint32_t i = 0; i < QK_FLASH_SECTOR_BYTES; i += 4u) {
		*(volatile uint32_t *)cell(offset + i) = 0xffffffffu;
	}
	return true;
}

bool qk_flash_program(uint32_t offset, const void *data, size_t size)
{
	const uint8_t *from = data;

	if (offset > FLASH_BYTES || size > FLASH_BYTES - offset) {
		return false;
	}
	for (size_t i = 0; i < size; i++) {
		*cell(offset + (uint32_t)i) &= from[i];
	}
	return memcmp(qk_flash_map(offset), data, size) == 0;
}
