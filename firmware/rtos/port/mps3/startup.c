/* SPDX-License-Identifier: Apache-2.0 */
#include <stdint.h>

#include "regs.h"

/* Vector table and C start-up, the same for bootloader and application. */

extern uint32_t qk_stack_top[], qk_data_load[], qk_data_start[], qk_data_end[], qk_bss_start[], qk_bss_end[];

int main(void);

void Reset_Handler(void);
void NMI_Handler(void);
void qk_fault_entry(void);
void SVC_Handler(void);
void PendSV_Handler(void);
void SysTick_Handler(void);
void Timer0_Handler(void);
void Uart0Rx_Handler(void);
void Uart1Rx_Handler(void);
void Uart2Rx_Handler(void);
void Default_Handler(void);

void __attribute__((weak, alias("Default_Handler"))) SVC_Handler(void);
void __attribute__((weak, alias("Default_Handler"))) PendSV_Handler(void);
void __attribute__((weak, alias("Default_Handler"))) SysTick_Handler(void);
void __attribute__((weak, alias("Default_Handler"))) Timer0_Handler(void);

/* An interrupt that nobody expects is a fault like any other: recorded, then reset. */
void __attribute__((naked)) Default_Handler(void)
{
	__asm volatile("b qk_fault_entry");
}

typedef void (*vector)(void);

#define IRQ(n) [16 + (n)]

__attribute__((section(".vectors"), used)) static const vector vectors[16 + 128] = {
    [0 ... 16 + 127] = Default_Handler,
    [0] = (vector)(uintptr_t)qk_stack_top,
    [1] = Reset_Handler,
    [2] = NMI_Handler,
    [3] = qk_fault_entry, /* hard fault */
    [4] = qk_fault_entry, /* memory management */
    [5] = qk_fault_entry, /* bus */
    [6] = qk_fault_entry, /* usage */
    [11] = SVC_Handler,
    [14] = PendSV_Handler,
    [15] = SysTick_Handler,
    IRQ(TIMER0_IRQ) = Timer0_Handler,
    IRQ(33) = Uart0Rx_Handler,
    IRQ(35) = Uart1Rx_Handler,
    IRQ(37) = Uart2Rx_Handler,
};

__attribute__((used)) static void start(void)
{
	for (uint32_t *to = qk_data_start, *from = qk_data_load; to < qk_data_end;) {
		*to++ = *from++;
	}
	for (uint32_t *to = qk_bss_start; to < qk_bss_end;) {
		*to++ = 0;
	}
	(void)main();
	for (;;) {
	}
}

void __attribute__((naked, noreturn)) Reset_Handler(void)
{
	/* The floating-point unit first: the compiler may use it anywhere. */
	__asm volatile("ldr r0, =0xe000ed88\n"
	               "ldr r1, [r0]\n"
	               "orr r1, r1, #0xf00000\n"
	               "str r1, [r0]\n"
	               "dsb\n"
	               "isb\n"
	               "b start\n");
}
