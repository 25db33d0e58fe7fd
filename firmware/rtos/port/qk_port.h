/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QK_PORT_H
#define QK_PORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What bootloader and application need from the chip besides the kernel port and the flash. */

/* Called first of all by both: floating point on, faults told apart, counter running. */
void qk_port_init(void);
uint64_t qk_port_time_us(void);
_Noreturn void qk_port_reset(void);
_Noreturn void qk_port_jump(uint32_t vector_table);
void qk_port_wait_for_interrupt(void);

/* Watchdog: a fault record and a reset when nobody kicks it for `timeout_ms` in which the processor could run. */
void qk_watchdog_start(uint32_t timeout_ms);
void qk_watchdog_kick(void);
/* Instead of a kick, by who looked after `ms` and found that somebody hangs. */
void qk_watchdog_missed(uint32_t ms);

/* UARTs: 0 command and telemetry link, 1 doorbell of the power path, 2 the AR1, 3 firmware log. */
enum { QK_UART_LINK = 0, QK_UART_DOORBELL = 1, QK_UART_AR1 = 2, QK_UART_LOG = 3 };
void qk_uart_open(unsigned uart, bool receive);
/* Sends what fits without waiting; returns how many bytes went. */
size_t qk_uart_send(unsigned uart, const uint8_t *data, size_t size);
/* Implemented by bootloader and application; called from the interrupt. */
void qk_uart_received(unsigned uart, uint8_t byte);

/* Shared memory with the plant model: converters, fuses, power chip. */
volatile uint8_t *qk_mailbox(void);
void qk_memory_barrier(void);

#endif
