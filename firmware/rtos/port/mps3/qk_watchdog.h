/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QK_WATCHDOG_H
#define QK_WATCHDOG_H

#include <stdbool.h>
#include <stdint.h>

/* Between watchdog and exceptions. True: the firmware hangs, and what runs is to be recorded and reset. */

/* The processor served a tick after `ms`. */
bool qk_watchdog_tick(uint32_t ms);
/* The hardware elapsed; it starts another period where the firmware does not hang. */
bool qk_watchdog_elapsed(void);

#endif
