/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QK_HOST_FLASH_H
#define QK_HOST_FLASH_H

#include <setjmp.h>
#include <stdint.h>

/* Flash in memory, with a power switch: the operation number `qk_host_cut_at` (counted from 0) does not come back.
 * How far it gets is `qk_host_cut_part`: nothing, half, or everything just before the lights go out. */

#define QK_HOST_FLASH_BYTES 0x00210000u

enum qk_host_cut_part { QK_CUT_BEFORE, QK_CUT_HALF, QK_CUT_AFTER };

extern uint8_t qk_host_flash[QK_HOST_FLASH_BYTES];
extern uint32_t qk_host_operations; /* erases and programs so far */
extern uint32_t qk_host_cut_at;     /* UINT32_MAX: never */
extern enum qk_host_cut_part qk_host_cut_part;
extern jmp_buf qk_host_power_lost;

#endif
