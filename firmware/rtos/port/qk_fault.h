/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QK_FAULT_H
#define QK_FAULT_H

#include "qk_telemetry.h"

/* Adds what only bootloader or application know: thread, build, version, uptime. Called from the fault handler: no
 * locks, no waiting, no pointer followed that was not checked. */
void qk_fault_describe(struct qk_wire_fault *fault);

/* An assertion that does not hold: recorded like a fault, then reset. `pc` is the place. */
_Noreturn void qk_fault_assert(uint32_t pc);

#endif
