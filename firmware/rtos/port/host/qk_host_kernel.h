/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QK_HOST_KERNEL_H
#define QK_HOST_KERNEL_H

#include <stdint.h>

/* Controls of the host port, for tests. */

extern uint32_t qk_host_end_tick; /* osKernelStart returns when all sleep beyond this */

void qk_host_start_at(uint32_t tick);          /* before osKernelInitialize: what time it is */
void qk_host_pass(uint32_t ticks);             /* the running thread computes for so long */
void qk_host_interrupt(void (*handler)(void)); /* runs `handler` as an interrupt would */

#endif
