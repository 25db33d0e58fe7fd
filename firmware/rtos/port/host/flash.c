/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "qk_flash.h"
#include "qk_host_flash.h"

uint8_t qk_host_flash[QK_HOST_FLASH_BYTES];
uint32_t qk_host_operations;
uint32_t qk_host_cut_at = UINT32_MAX;
enum qk_host_cut_part qk_host_cut_part;
jmp_buf qk_host_power_lost;

const uint8_t *qk_flash_map(uint32_t offset)
{
	return qk_host_flash + offset;
}

/* How much of an operation of `size` bytes happens; less than all means that power is lost after it. */
static size_t allowed(size_t size)
{
	if (qk_host_operations != qk_host_cut_at) {
		return size;
	}
	return qk_host_cut_part == QK_CUT_BEFORE ? 0 : qk_host_cut_part == QK_CUT_HALF ? size / 2 : size;
}

static void finish(void)
{
	if (qk_host_operations++ == qk_host_cut_at) {
		longjmp(qk_host_power_lost, 1);
	}
}

bool qk_flash_erase(uint32_t offset)
{
	if (offset % QK_FLASH_SECTOR_BYTES || offset > QK_HOST_FLASH_BYTES - QK_FLASH_SECTOR_BYTES) {
		return false;
	}
	memset(qk_host_flash + offset, 0xff, allowed(QK_FLASH_SECTOR_BYTES));
	finish();
	return true;
}

bool qk_flash_program(uint32_t offset, const void *data, size_t size)
{
	const uint8_t *from = data;
	size_t count;

	if (offset > QK_HOST_FLASH_BYTES || size > QK_HOST_FLASH_BYTES - offset) {
		return false;
	}
	count = allowed(size);
	for (size_t i = 0; i < count; i++) {
		qk_host_flash[offset + i] &= from[i];
	}
	finish();
	return memcmp(qk_host_flash + offset, data, size) == 0;
}
