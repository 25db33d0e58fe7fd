/* SPDX-License-Identifier: Apache-2.0 */
#include "qk_port.h"
#include "qk_watchdog.h"
#include "regs.h"

/* The watchdog of a board whose processor is a process. QEMU counts the host's time, also while the host gives the
 * guest none; firmware that was only kept from running must not be taken for firmware that hangs. So what counts here
 * is time in which the processor ran: each tick that it served, and each round of a guard that may not kick. A hang
 * ends after the time-out in such time. The hardware stands behind that, for what keeps ticks away: when it elapses
 * (NMI) and the last period had no tick either, interrupts stay masked; otherwise there is another period. Its second
 * stage resets: after 8 s in which the guest got nothing at all. */

#define HARDWARE_MS 4000u
#define CONTROL_INTERRUPT_AND_RESET 3u

static uint32_t timeout;
static volatile uint32_t ran, ran_before;
static volatile bool elapsed_before;

void qk_watchdog_start(uint32_t timeout_ms)
{
	timeout = timeout_ms;
	ran = 0;
	elapsed_before = false;
	WATCHDOG_LOCK = WATCHDOG_UNLOCK_KEY;
	WATCHDOG_LOAD = HARDWARE_MS * WATCHDOG_HZ / 1000u;
	WATCHDOG_CONTROL = CONTROL_INTERRUPT_AND_RESET;
	WATCHDOG_LOCK = 0;
}

static void restart(void)
{
	WATCHDOG_LOCK = WATCHDOG_UNLOCK_KEY;
	WATCHDOG_CLEAR = 1;
	WATCHDOG_LOCK = 0;
}

void qk_watchdog_kick(void)
{
	ran = 0;
	elapsed_before = false;
	restart();
}

static bool due(void)
{
	return timeout && ran >= timeout;
}

void qk_watchdog_missed(uint32_t ms)
{
	ran += ms;
	if (due()) {
		SCB_ICSR = ICSR_NMIPENDSET;
	}
}

bool qk_watchdog_tick(uint32_t ms)
{
	ran += ms;
	return due();
}

bool qk_watchdog_elapsed(void)
{
	if (due() || (elapsed_before && ran == ran_before)) {
		return true;
	}
	ran_before = ran;
	elapsed_before = true;
	restart();
	return false;
}
