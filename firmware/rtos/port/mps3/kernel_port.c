/* SPDX-License-Identifier: Apache-2.0 */
#include "qk_kernel.h"
#include "qk_watchdog.h"
#include "regs.h"

/* Kernel port for Armv8-M mainline with FPU. Time is the 64-bit system counter and nothing else: SysTick only gives
 * equals their turn while somebody runs, since its interrupts get lost when the host is busy. Tickless idle uses the
 * counter's own compare; reloading SysTick for it goes wrong in the emulator (time ran 3 to 8 times too fast). */

#define LOCK_BASEPRI 0x40u
#define COUNTS_PER_TICK (COUNTER_HZ / QK_TICK_HZ)
#define IDLE_TICKS_MAX 60000u
#define IDLE_BASEPRI 0x80u /* masks SysTick and PendSV, not the devices */

static volatile bool timer_fired;

void PendSV_Handler(void);
void SVC_Handler(void);
void SysTick_Handler(void);
void Timer0_Handler(void);

uint32_t qk_port_lock(void)
{
	uint32_t before;

	__asm volatile("mrs %0, basepri\n"
	               "msr basepri, %1\n"
	               "isb\n"
	               : "=&r"(before)
	               : "r"(LOCK_BASEPRI)
	               : "memory");
	return before;
}

void qk_port_unlock(uint32_t lock)
{
	__asm volatile("msr basepri, %0\n"
	               "isb\n" ::"r"(lock)
	               : "memory");
}

bool qk_port_in_isr(void)
{
	uint32_t exception;

	__asm volatile("mrs %0, ipsr" : "=r"(exception));
	return exception != 0;
}

uint64_t qk_port_counter(void)
{
	return counter_read();
}

uint32_t qk_port_counter_hz(void)
{
	return COUNTER_HZ;
}

void qk_port_request_switch(void)
{
	SCB_ICSR = ICSR_PENDSVSET;
}

void *qk_port_stack_init(struct qk_thread *thread, osThreadFunc_t function, void *argument)
{
	uint32_t *at = (uint32_t *)(((uintptr_t)thread->stack + thread->stack_bytes) & ~(uintptr_t)7u);

	/* What the processor restores: psr, pc, lr, r12, r3, r2, r1, r0. */
	*--at = 0x01000000u;
	*--at = (uint32_t)(uintptr_t)function;
	*--at = (uint32_t)(uintptr_t)osThreadExit;
	for (unsigned i = 0; i < 4; i++) {
		*--at = 0;
	}
	*--at = (uint32_t)(uintptr_t)argument;
	/* What PendSV restores: EXC_RETURN, r11..r4, PSPLIM. */
	*--at = 0xfffffffdu;
	for (unsigned i = 0; i < 8; i++) {
		*--at = 0;
	}
	*--at = (uint32_t)(uintptr_t)thread->stack;
	return at;
}

/* PSPLIM is written before PSP: the other order could fault on the old limit. s16-s31 are saved only when the thread
 * has a floating-point context; that store also makes the processor save s0-s15. */
void __attribute__((naked)) PendSV_Handler(void)
{
	__asm volatile("mrs r0, psp\n"
	               "tst lr, #0x10\n"
	               "it eq\n"
	               "vstmdbeq r0!, {s16-s31}\n"
	               "mrs r2, psplim\n"
	               "stmdb r0!, {r2, r4-r11, lr}\n"
	               "ldr r3, =qk_current\n"
	               "ldr r1, [r3]\n"
	               "str r0, [r1]\n"
	               "mov r0, #0x40\n"
	               "msr basepri, r0\n"
	               "isb\n"
	               "ldr r2, =qk_next\n"
	               "ldr r2, [r2]\n"
	               "str r2, [r3]\n"
	               "ldr r1, =qk_switch_count\n"
	               "ldr r0, [r1]\n"
	               "adds r0, #1\n"
	               "str r0, [r1]\n"
	               "movs r0, #0\n"
	               "msr basepri, r0\n"
	               "ldr r0, [r2]\n"
	               "ldmia r0!, {r2, r4-r11, lr}\n"
	               "msr psplim, r2\n"
	               "tst lr, #0x10\n"
	               "it eq\n"
	               "vldmiaeq r0!, {s16-s31}\n"
	               "msr psp, r0\n"
	               "isb\n"
	               "bx lr\n");
}

/* Used once, to enter the first thread. Until here BASEPRI holds back everything that could ask for a switch: a tick in
 * front of the first thread would make PendSV save the context of nobody. */
void __attribute__((naked)) SVC_Handler(void)
{
	__asm volatile("ldr r3, =qk_next\n"
	               "ldr r2, [r3]\n"
	               "ldr r3, =qk_current\n"
	               "str r2, [r3]\n"
	               "ldr r0, [r2]\n"
	               "ldmia r0!, {r2, r4-r11, lr}\n"
	               "msr psplim, r2\n"
	               "msr psp, r0\n"
	               "movs r1, #0\n"
	               "msr basepri, r1\n"
	               "isb\n"
	               "bx lr\n");
}

/* Returns whether the tick finds a hang: then it ends as a fault of what it interrupted. */
__attribute__((used)) static bool on_tick(void)
{
	qk_tick((uint32_t)(qk_port_counter() / COUNTS_PER_TICK), true);
	return qk_watchdog_tick(1000u / QK_TICK_HZ);
}

void __attribute__((naked)) SysTick_Handler(void)
{
	__asm volatile("push {r0, lr}\n"
	               "bl %c0\n"
	               "cmp r0, #0\n"
	               "pop {r0, lr}\n"
	               "bne qk_fault_entry\n"
	               "bx lr\n" ::"i"(on_tick));
}

/* Only wakes the processor; the idle thread does the rest. */
void Timer0_Handler(void)
{
	TIMER0_CONTROL = 0;
	timer_fired = true;
}

void qk_port_start(void)
{
	(void)qk_port_lock(); /* the first thread lets go of it, in SVC_Handler */
	NVIC_ISER(0) = 1u << TIMER0_IRQ;
	SCB_SHPR2 = 0;
	SCB_SHPR3 = 0xe0u << 24 | 0xffu << 16; /* SysTick, PendSV */
	SYST_RVR = COUNTS_PER_TICK - 1u;
	SYST_CVR = 0;
	SYST_CSR = 7;
	__asm volatile("cpsie i\n dsb\n isb\n svc 0" ::: "memory");
	for (;;) {
	}
}

/* Sleeps with only SysTick and PendSV masked: interrupts are served one after the other for as long as none of them
 * makes a thread ready, which keeps a stream of received bytes cheap. Time is caught up before anything else runs. */
void qk_port_idle(void)
{
	uint32_t wake, now = qk_tick_now(), ticks = IDLE_TICKS_MAX;
	uint64_t tick64 = qk_port_counter() / COUNTS_PER_TICK, compare;

	__asm volatile("msr basepri, %0\n isb" ::"r"(IDLE_BASEPRI) : "memory");
	if (qk_next_wake(&wake)) {
		int32_t left = (int32_t)(wake - now);

		ticks = left <= 0 ? 0 : (uint32_t)left < IDLE_TICKS_MAX ? (uint32_t)left : IDLE_TICKS_MAX;
	}
	/* The tick count is the lower half of counter / counts: continue from its present 64-bit value. */
	tick64 -= (uint32_t)((uint32_t)tick64 - now);
	compare = (tick64 + ticks) * COUNTS_PER_TICK;
	SYST_CSR = 0;
	SCB_ICSR = ICSR_PENDSTCLR;
	TIMER0_COMPARE_LOW = (uint32_t)compare;
	TIMER0_COMPARE_HIGH = (uint32_t)(compare >> 32);
	TIMER0_CONTROL = 1;
	timer_fired = false;
	for (;;) {
		/* Masked by PRIMASK between test and sleep: an interrupt still ends WFI, and is served right after. */
		__asm volatile("cpsid i" ::: "memory");
		if (timer_fired || qk_next != qk_current) {
			break;
		}
		__asm volatile("dsb\n wfi\n cpsie i\n isb" ::: "memory");
	}
	TIMER0_CONTROL = 0;
	NVIC_ICPR(0) = 1u << TIMER0_IRQ;
	qk_tick((uint32_t)(qk_port_counter() / COUNTS_PER_TICK), false);
	SYST_CVR = 0;
	SYST_CSR = 7;
	__asm volatile("cpsie i\n msr basepri, %0\n isb" ::"r"(0) : "memory");
}
