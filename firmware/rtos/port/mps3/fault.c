/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "qk_fault.h"
#include "qk_port.h"
#include "qk_retained.h"
#include "regs.h"

/* Every fault ends in a record in retained memory and a reset. The handler runs on the main stack and trusts nothing of
 * the thread that failed, least of all its stack. */

void NMI_Handler(void);
void qk_fault_entry(void);
void qk_fault_record(uint32_t exc_return, uint32_t msp, uint32_t psp);

void __attribute__((naked)) qk_fault_entry(void)
{
	__asm volatile("mov r0, lr\n"
	               "mrs r1, msp\n"
	               "mrs r2, psp\n"
	               "b qk_fault_record\n");
}

/* Whoever runs now may have kept the thread that kicks the watchdog from running. */
void __attribute__((naked)) NMI_Handler(void)
{
	__asm volatile("push {r0, lr}\n"
	               "bl qk_watchdog_elapsed\n"
	               "cmp r0, #0\n"
	               "pop {r0, lr}\n"
	               "bne qk_fault_entry\n"
	               "bx lr\n");
}

static uint8_t kind_of(uint32_t exception)
{
	switch (exception) {
	case 2:  /* NMI */
	case 15: /* SysTick */
		return QK_FAULT_KIND_WATCHDOG;
	case 4:
		return QK_FAULT_KIND_MEMORY;
	case 5:
		return QK_FAULT_KIND_BUS;
	case 6:
		return SCB_CFSR & CFSR_STKOF ? QK_FAULT_KIND_STACK_OVERFLOW : QK_FAULT_KIND_USAGE;
	default:
		return QK_FAULT_KIND_HARD;
	}
}

static bool readable(uint32_t address, uint32_t size)
{
	return (address >= 0x21000000u && address <= 0x21400000u - size) ||
	       (address >= 0x20000000u && address <= 0x20080000u - size);
}

__attribute__((used)) void qk_fault_record(uint32_t exc_return, uint32_t msp, uint32_t psp)
{
	struct qk_wire_fault *fault = &qk_retained()->fault;
	uint32_t exception, frame = exc_return & 4u ? psp : msp, limit = 0;

	__asm volatile("mrs %0, ipsr" : "=r"(exception));
	memset(fault, 0, sizeof *fault);
	fault->kind = kind_of(exception & 0x1ffu);
	fault->sp = frame;
	fault->cfsr = SCB_CFSR;
	fault->hfsr = SCB_HFSR;
	fault->mmfar = SCB_MMFAR;
	fault->bfar = SCB_BFAR;
	if (exc_return & 4u) {
		__asm volatile("mrs %0, psplim" : "=r"(limit));
	}
	/* r0-r3, r12, lr, pc, psr: only where the processor could write them. */
	if (frame >= limit && frame % 4u == 0 && readable(frame, 32)) {
		const uint32_t *stacked = (const uint32_t *)(uintptr_t)frame;

		fault->lr = stacked[5];
		fault->pc = stacked[6];
		fault->psr = stacked[7];
	}
	qk_fault_describe(fault);
	qk_retained_fault_seal();
	qk_port_reset();
}

_Noreturn void qk_fault_assert(uint32_t pc)
{
	struct qk_wire_fault *fault = &qk_retained()->fault;

	__asm volatile("cpsid i" ::: "memory");
	memset(fault, 0, sizeof *fault);
	fault->kind = QK_FAULT_KIND_ASSERTION;
	fault->pc = pc;
	qk_fault_describe(fault);
	qk_retained_fault_seal();
	qk_port_reset();
}
