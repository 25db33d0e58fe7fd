/* SPDX-License-Identifier: Apache-2.0 */
#include "qk_port.h"
#include "qk_retained.h"
#include "regs.h"

/* Interrupt priorities: the kernel lock masks 0x40 and below in urgency, so UARTs (0x60) may call the kernel. */
#define PRIORITY_UART 0x60u

void qk_port_init(void)
{
	COUNTER_CONTROL = 1;
	SCB_SHCSR |= 7u << 16; /* memory, bus and usage faults of their own instead of hard faults */
}

uint64_t qk_port_time_us(void)
{
	return counter_read() / (COUNTER_HZ / 1000000u);
}

_Noreturn void qk_port_reset(void)
{
	__asm volatile("dsb" ::: "memory");
	SCB_AIRCR = AIRCR_RESET;
	for (;;) {
	}
}

_Noreturn void qk_port_jump(uint32_t vector_table)
{
	const uint32_t *table = (const uint32_t *)(uintptr_t)vector_table;

	__asm volatile("cpsid i" ::: "memory");
	SYST_CSR = 0;
	TIMER0_CONTROL = 0;
	for (unsigned i = 0; i < 4; i++) {
		NVIC_ICER(i) = 0xffffffffu;
		NVIC_ICPR(i) = 0xffffffffu;
	}
	SCB_ICSR = ICSR_PENDSTCLR;
	SCB_VTOR = vector_table;
	__asm volatile("msr msplim, %2\n"
	               "msr msp, %0\n"
	               "dsb\n"
	               "isb\n"
	               "cpsie i\n"
	               "bx %1\n" ::"r"(table[0]),
	               "r"(table[1]), "r"(0)
	               : "memory");
	__builtin_unreachable();
}

void qk_port_wait_for_interrupt(void)
{
	__asm volatile("dsb\n wfi\n isb" ::: "memory");
}

void qk_uart_open(unsigned uart, bool receive)
{
	UART_BAUDDIV(uart) = 32; /* 1 Mbaud at 32 MHz; the emulator does not care */
	UART_CONTROL(uart) = receive ? 0xbu : 0x1u;
	if (receive) {
		unsigned irq = UART_RX_IRQ(uart);

		NVIC_IPR8(irq) = PRIORITY_UART;
		NVIC_ISER(irq / 32u) = 1u << (irq % 32u);
	}
}

size_t qk_uart_send(unsigned uart, const uint8_t *data, size_t size)
{
	size_t sent = 0;

	while (sent < size && !(UART_STATE(uart) & UART_STATE_TXFULL)) {
		UART_DATA(uart) = data[sent++];
	}
	return sent;
}

static void receive(unsigned uart)
{
	uint32_t state;

	UART_INTCLEAR(uart) = 2; /* before reading: the other order loses interrupts */
	while ((state = UART_STATE(uart)) & UART_STATE_RXFULL) {
		qk_uart_received(uart, (uint8_t)UART_DATA(uart));
	}
	if (state & UART_STATE_OVERRUN) {
		UART_STATE(uart) = UART_STATE_OVERRUN;
	}
}

void Uart0Rx_Handler(void);
void Uart1Rx_Handler(void);
void Uart2Rx_Handler(void);

void Uart0Rx_Handler(void)
{
	receive(0);
}

void Uart1Rx_Handler(void)
{
	receive(1);
}

void Uart2Rx_Handler(void)
{
	receive(2);
}

volatile uint8_t *qk_mailbox(void)
{
	return (volatile uint8_t *)(uintptr_t)MAILBOX_BASE;
}

void qk_memory_barrier(void)
{
	__asm volatile("dmb" ::: "memory");
}

struct qk_retained *qk_retained(void)
{
	return (struct qk_retained *)(uintptr_t)RETAINED_BASE;
}
