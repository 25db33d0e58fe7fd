/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QK_MPS3_REGS_H
#define QK_MPS3_REGS_H

#include <stdint.h>

/* Registers of the Cortex-M55 and of the mps3-an547 board, as far as they are used.
 * Sources: Armv8-M Architecture Reference Manual; Arm AN547; SSE-300 and CMSDK technical reference manuals. */

#define QK_REG32(address) (*(volatile uint32_t *)(uintptr_t)(address))

#define SYST_CSR QK_REG32(0xe000e010u)
#define SYST_RVR QK_REG32(0xe000e014u)
#define SYST_CVR QK_REG32(0xe000e018u)
#define NVIC_ISER(n) QK_REG32(0xe000e100u + 4u * (n))
#define NVIC_ICER(n) QK_REG32(0xe000e180u + 4u * (n))
#define NVIC_ICPR(n) QK_REG32(0xe000e280u + 4u * (n))
#define NVIC_IPR8(n) (*(volatile uint8_t *)(uintptr_t)(0xe000e400u + (n)))
#define SCB_ICSR QK_REG32(0xe000ed04u)
#define SCB_VTOR QK_REG32(0xe000ed08u)
#define SCB_AIRCR QK_REG32(0xe000ed0cu)
#define SCB_SHPR2 QK_REG32(0xe000ed1cu)
#define SCB_SHPR3 QK_REG32(0xe000ed20u)
#define SCB_SHCSR QK_REG32(0xe000ed24u)
#define SCB_CFSR QK_REG32(0xe000ed28u)
#define SCB_HFSR QK_REG32(0xe000ed2cu)
#define SCB_MMFAR QK_REG32(0xe000ed34u)
#define SCB_BFAR QK_REG32(0xe000ed38u)
#define SCB_CPACR QK_REG32(0xe000ed88u)

#define ICSR_NMIPENDSET (1u << 31)
#define ICSR_PENDSVSET (1u << 28)
#define ICSR_PENDSTCLR (1u << 25)
#define AIRCR_RESET 0x05fa0004u
#define CFSR_STKOF (1u << 20)

/* SSE-300 system counter (32 MHz) and its timer 0 */
#define COUNTER_CONTROL QK_REG32(0x58100000u)
#define TIMER0_COUNT_LOW QK_REG32(0x58000000u)
#define TIMER0_COUNT_HIGH QK_REG32(0x58000004u)
#define TIMER0_COMPARE_LOW QK_REG32(0x58000020u)
#define TIMER0_COMPARE_HIGH QK_REG32(0x58000024u)
#define TIMER0_CONTROL QK_REG32(0x5800002cu)
#define TIMER0_IRQ 3u
#define COUNTER_HZ 32000000u

/* CMSDK watchdog on the 32 kHz clock */
#define WATCHDOG_LOAD QK_REG32(0x5802e000u)
#define WATCHDOG_CONTROL QK_REG32(0x5802e008u)
#define WATCHDOG_CLEAR QK_REG32(0x5802e00cu)
#define WATCHDOG_LOCK QK_REG32(0x5802ec00u)
#define WATCHDOG_UNLOCK_KEY 0x1acce551u
#define WATCHDOG_HZ 32768u

/* CMSDK UARTs */
#define UART_BASE(n) (0x49303000u + 0x1000u * (n))
#define UART_DATA(n) QK_REG32(UART_BASE(n) + 0x0u)
#define UART_STATE(n) QK_REG32(UART_BASE(n) + 0x4u)
#define UART_CONTROL(n) QK_REG32(UART_BASE(n) + 0x8u)
#define UART_INTCLEAR(n) QK_REG32(UART_BASE(n) + 0xcu)
#define UART_BAUDDIV(n) QK_REG32(UART_BASE(n) + 0x10u)
#define UART_RX_IRQ(n) (33u + 2u * (n))
#define UART_STATE_TXFULL 1u
#define UART_STATE_RXFULL 2u
#define UART_STATE_OVERRUN 8u

/* The two halves are read apart: again when the upper one moved in between. */
static inline uint64_t counter_read(void)
{
	uint32_t high, low;

	do {
		high = TIMER0_COUNT_HIGH;
		low = TIMER0_COUNT_LOW;
	} while (high != TIMER0_COUNT_HIGH);
	return (uint64_t)high << 32 | low;
}

#define FLASH_BASE 0x60000000u
#define MAILBOX_BASE 0x68000000u
#define RETAINED_BASE 0x2007f000u

#endif
