/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "cmsis_os2.h"
#include "qk_check.h"
#include "qk_host_kernel.h"
#include "qk_kernel.h"

/* The kernel's logic on the host; its context switch and clock are stressed in the emulator (stress.c). */

static struct qk_thread blocks[8];
static uint64_t stacks[8][64];
static char trace[64];
static unsigned traced;

static void mark(char c)
{
	if (traced + 1 < sizeof trace) {
		trace[traced++] = c;
	}
}

static osThreadId_t spawn(unsigned index, osThreadFunc_t function, void *argument, osPriority_t priority)
{
	osThreadAttr_t attributes = {.name = "test",
	                             .cb_mem = &blocks[index],
	                             .cb_size = sizeof blocks[index],
	                             .stack_mem = stacks[index],
	                             .stack_size = sizeof stacks[index],
	                             .priority = priority};
	osThreadId_t id = osThreadNew(function, argument, &attributes);

	CHECK(id);
	return id;
}

static void prepare(void)
{
	memset(trace, 0, sizeof trace);
	traced = 0;
	qk_host_end_tick = 100000;
	qk_host_start_at(0);
	CHECK(osKernelInitialize() == osOK);
}

/* --- delays and time ------------------------------------------------------------------------------------------------
 */

static void sleeper(void *argument)
{
	uint32_t began = osKernelGetTickCount();

	CHECK(osDelay((uint32_t)(uintptr_t)argument) == osOK);
	CHECK(osKernelGetTickCount() - began == (uint32_t)(uintptr_t)argument);
	mark((char)('0' + (uintptr_t)argument / 10));
}

static void delays_end_in_the_order_of_their_length(void)
{
	prepare();
	spawn(0, sleeper, (void *)30, osPriorityNormal);
	spawn(1, sleeper, (void *)10, osPriorityNormal);
	spawn(2, sleeper, (void *)20, osPriorityHigh);
	CHECK(osKernelStart() == osOK);
	CHECK(!strcmp(trace, "123"));
}

static void delays_survive_the_wrap_of_the_tick_counter(void)
{
	prepare();
	qk_host_start_at(0xfffffff0u);
	qk_host_end_tick = 1000;
	spawn(0, sleeper, (void *)30, osPriorityNormal);
	spawn(1, sleeper, (void *)10, osPriorityNormal);
	CHECK(osKernelStart() == osOK);
	CHECK(!strcmp(trace, "13"));
}

static void until(void *argument)
{
	(void)argument;
	CHECK(osDelayUntil(50) == osOK && osKernelGetTickCount() == 50);
	CHECK(osDelayUntil(50) == osErrorParameter);
	CHECK(osDelay(0) == osOK);
	mark('u');
}

static void a_delay_until_the_past_is_refused(void)
{
	prepare();
	spawn(0, until, NULL, osPriorityNormal);
	CHECK(osKernelStart() == osOK);
	CHECK(!strcmp(trace, "u"));
}

/* --- round robin: the second trap of the prototype ------------------------------------------------------------------
 */

static uint32_t turns[2];

static void spinner(void *argument)
{
	uint32_t *count = argument;

	while (osKernelGetTickCount() < 400) {
		(*count)++;
		qk_host_pass(1);
	}
}

static void interrupter(void *argument)
{
	(void)argument;
	while (osKernelGetTickCount() < 400) {
		CHECK(osDelay(1) == osOK);
	}
}

static void equals_share_the_processor_although_a_third_wakes_at_every_tick(void)
{
	prepare();
	turns[0] = turns[1] = 0;
	spawn(0, spinner, &turns[0], osPriorityNormal);
	spawn(1, spinner, &turns[1], osPriorityNormal);
	spawn(2, interrupter, NULL, osPriorityHigh);
	CHECK(osKernelStart() == osOK);
	CHECK(turns[0] + turns[1] >= 398);
	CHECK(turns[0] > 150 && turns[1] > 150);
}

/* --- semaphores and queues ------------------------------------------------------------------------------------------
 */

static struct qk_semaphore semaphore;

static void make_semaphore(uint32_t max, uint32_t count)
{
	osSemaphoreAttr_t attributes = {.cb_mem = &semaphore, .cb_size = sizeof semaphore};

	CHECK(osSemaphoreNew(max, count, &attributes) == &semaphore);
}

static void taker(void *argument)
{
	CHECK(osSemaphoreAcquire(&semaphore, osWaitForever) == osOK);
	mark((char)(uintptr_t)argument);
}

static void giver(void *argument)
{
	(void)argument;
	CHECK(osDelay(5) == osOK);
	CHECK(osSemaphoreRelease(&semaphore) == osOK);
	CHECK(osSemaphoreRelease(&semaphore) == osOK);
	CHECK(osSemaphoreRelease(&semaphore) == osOK);
	mark('.');
}

static void the_most_urgent_waiter_gets_the_semaphore_first(void)
{
	prepare();
	make_semaphore(3, 0);
	spawn(0, taker, (void *)'l', osPriorityLow);
	spawn(1, taker, (void *)'n', osPriorityNormal);
	spawn(2, taker, (void *)'h', osPriorityHigh);
	spawn(3, giver, NULL, osPriorityRealtime);
	CHECK(osKernelStart() == osOK);
	CHECK(!strcmp(trace, ".hnl"));
}

static void impatient(void *argument)
{
	uint32_t began = osKernelGetTickCount();

	(void)argument;
	CHECK(osSemaphoreAcquire(&semaphore, 0) == osErrorResource);
	CHECK(osSemaphoreAcquire(&semaphore, 20) == osErrorTimeout);
	CHECK(osKernelGetTickCount() - began == 20);
	CHECK(osSemaphoreRelease(&semaphore) == osOK && osSemaphoreGetCount(&semaphore) == 1);
	CHECK(osSemaphoreRelease(&semaphore) == osErrorResource);
	CHECK(osSemaphoreAcquire(&semaphore, 20) == osOK);
	CHECK(osSemaphoreAcquire(NULL, 0) == osErrorParameter);
	mark('t');
}

static void waiting_ends_at_its_timeout(void)
{
	prepare();
	make_semaphore(1, 0);
	spawn(0, impatient, NULL, osPriorityNormal);
	CHECK(osKernelStart() == osOK);
	CHECK(!strcmp(trace, "t"));
}

static struct qk_message_queue queue;
static uint32_t queue_memory[4];
static uint32_t received_count;

static void producer(void *argument)
{
	(void)argument;
	for (uint32_t i = 0; i < 1000; i++) {
		CHECK(osMessageQueuePut(&queue, &i, 0, osWaitForever) == osOK);
	}
}

static void consumer(void *argument)
{
	(void)argument;
	for (uint32_t i = 0; i < 1000; i++) {
		uint32_t message = 0;
		uint8_t priority = 9;

		if (i % 7 == 0) {
			CHECK(osDelay(1) == osOK);
		}
		CHECK(osMessageQueueGet(&queue, &message, &priority, osWaitForever) == osOK);
		CHECK(message == i && priority == 0);
		received_count++;
	}
	CHECK(osMessageQueueGetCount(&queue) == 0 && osMessageQueueGetCapacity(&queue) == 4);
}

static void messages_arrive_once_and_in_order(void)
{
	static const osPriority_t priorities[] = {osPriorityLow, osPriorityNormal, osPriorityHigh};

	for (unsigned i = 0; i < 3; i++) {
		osMessageQueueAttr_t attributes = {
		    .cb_mem = &queue, .cb_size = sizeof queue, .mq_mem = queue_memory, .mq_size = sizeof queue_memory};

		prepare();
		received_count = 0;
		CHECK(osMessageQueueNew(4, sizeof(uint32_t), &attributes) == &queue);
		spawn(0, producer, NULL, osPriorityNormal);
		spawn(1, consumer, NULL, priorities[i]);
		CHECK(osKernelStart() == osOK);
		CHECK(received_count == 1000);
	}
}

static void from_interrupt(void)
{
	uint32_t message = 42;

	CHECK(osMessageQueuePut(&queue, &message, 0, 0) == osOK);
	CHECK(osMessageQueuePut(&queue, &message, 0, 1) == osErrorParameter);
	CHECK(osDelay(1) == osErrorISR && osMutexAcquire(NULL, 0) == osErrorISR);
	CHECK(!osThreadNew(sleeper, NULL, NULL));
	mark('i');
}

static void waits_for_interrupt(void *argument)
{
	uint32_t message = 0;

	(void)argument;
	CHECK(osMessageQueueGet(&queue, &message, NULL, osWaitForever) == osOK && message == 42);
	mark('w');
}

static void raises_interrupt(void *argument)
{
	(void)argument;
	qk_host_interrupt(from_interrupt);
	mark('r');
}

static void an_interrupt_wakes_a_thread_but_never_blocks(void)
{
	osMessageQueueAttr_t attributes = {
	    .cb_mem = &queue, .cb_size = sizeof queue, .mq_mem = queue_memory, .mq_size = sizeof queue_memory};

	prepare();
	CHECK(osMessageQueueNew(4, sizeof(uint32_t), &attributes) == &queue);
	spawn(0, waits_for_interrupt, NULL, osPriorityHigh);
	spawn(1, raises_interrupt, NULL, osPriorityLow);
	CHECK(osKernelStart() == osOK);
	CHECK(!strcmp(trace, "iwr"));
}

/* --- mutexes --------------------------------------------------------------------------------------------------------
 */

static struct qk_mutex mutexes[2];

static osMutexId_t make_mutex(unsigned index, uint32_t bits)
{
	osMutexAttr_t attributes = {.attr_bits = bits, .cb_mem = &mutexes[index], .cb_size = sizeof mutexes[index]};

	return osMutexNew(&attributes);
}

static void low_owner(void *argument)
{
	(void)argument;
	CHECK(osMutexAcquire(&mutexes[0], osWaitForever) == osOK);
	mark('a');
	CHECK(osDelay(10) == osOK);
	CHECK(osThreadGetPriority(osThreadGetId()) == osPriorityHigh); /* lent by the waiter */
	qk_host_pass(10);
	mark('b');
	CHECK(osMutexRelease(&mutexes[0]) == osOK);
	CHECK(osThreadGetPriority(osThreadGetId()) == osPriorityLow);
	mark('e');
}

static void middle(void *argument)
{
	(void)argument;
	CHECK(osDelay(10) == osOK);
	mark('d');
}

static void high_waiter(void *argument)
{
	(void)argument;
	CHECK(osDelay(5) == osOK);
	CHECK(osMutexAcquire(&mutexes[0], osWaitForever) == osOK);
	mark('c');
	CHECK(osMutexRelease(&mutexes[0]) == osOK);
}

static void the_owner_of_a_mutex_runs_at_its_waiters_priority(void)
{
	prepare();
	CHECK(make_mutex(0, osMutexPrioInherit));
	spawn(0, low_owner, NULL, osPriorityLow);
	spawn(1, middle, NULL, osPriorityNormal);
	spawn(2, high_waiter, NULL, osPriorityHigh);
	CHECK(osKernelStart() == osOK);
	CHECK(!strcmp(trace, "abcde")); /* without inheritance: adb... */
}

static void chain_owner(void *argument)
{
	(void)argument;
	CHECK(osMutexAcquire(&mutexes[0], osWaitForever) == osOK);
	CHECK(osDelay(20) == osOK);
	CHECK(osThreadGetPriority(osThreadGetId()) == osPriorityRealtime);
	CHECK(osMutexRelease(&mutexes[0]) == osOK);
	CHECK(osThreadGetPriority(osThreadGetId()) == osPriorityLow);
	mark('1');
}

static void chain_middle(void *argument)
{
	(void)argument;
	CHECK(osDelay(1) == osOK);
	CHECK(osMutexAcquire(&mutexes[1], osWaitForever) == osOK);
	CHECK(osMutexAcquire(&mutexes[0], osWaitForever) == osOK);
	CHECK(osThreadGetPriority(osThreadGetId()) == osPriorityRealtime);
	CHECK(osMutexRelease(&mutexes[0]) == osOK);
	CHECK(osMutexRelease(&mutexes[1]) == osOK);
	CHECK(osThreadGetPriority(osThreadGetId()) == osPriorityNormal);
	mark('2');
}

static void chain_end(void *argument)
{
	(void)argument;
	CHECK(osDelay(2) == osOK);
	CHECK(osMutexAcquire(&mutexes[1], osWaitForever) == osOK);
	CHECK(osMutexRelease(&mutexes[1]) == osOK);
	mark('3');
}

static void inheritance_goes_along_a_chain_of_owners(void)
{
	prepare();
	CHECK(make_mutex(0, osMutexPrioInherit) && make_mutex(1, osMutexPrioInherit));
	spawn(0, chain_owner, NULL, osPriorityLow);
	spawn(1, chain_middle, NULL, osPriorityNormal);
	spawn(2, chain_end, NULL, osPriorityRealtime);
	CHECK(osKernelStart() == osOK);
	CHECK(!strcmp(trace, "321"));
}

static void gives_up(void *argument)
{
	(void)argument;
	CHECK(osDelay(1) == osOK);
	CHECK(osMutexAcquire(&mutexes[0], 5) == osErrorTimeout);
	mark('g');
}

static void borrower(void *argument)
{
	(void)argument;
	CHECK(osMutexAcquire(&mutexes[0], 0) == osOK);
	CHECK(osDelay(3) == osOK);
	CHECK(osThreadGetPriority(osThreadGetId()) == osPriorityHigh);
	CHECK(osDelay(10) == osOK);
	CHECK(osThreadGetPriority(osThreadGetId()) == osPriorityLow);
	mark('l');
}

static void a_waiter_that_gives_up_takes_its_priority_back(void)
{
	prepare();
	CHECK(make_mutex(0, osMutexPrioInherit));
	spawn(0, borrower, NULL, osPriorityLow);
	spawn(1, gives_up, NULL, osPriorityHigh);
	CHECK(osKernelStart() == osOK);
	CHECK(!strcmp(trace, "gl"));
}

static void dies_with_mutex(void *argument)
{
	(void)argument;
	CHECK(osMutexAcquire(&mutexes[0], 0) == osOK);
	CHECK(osDelay(5) == osOK);
}

static void inherits_mutex(void *argument)
{
	(void)argument;
	CHECK(osDelay(1) == osOK);
	CHECK(osMutexRelease(&mutexes[0]) == osErrorResource);
	CHECK(osMutexAcquire(&mutexes[0], osWaitForever) == osOK);
	CHECK(osMutexAcquire(&mutexes[0], osWaitForever) == osOK); /* recursive */
	CHECK(osMutexRelease(&mutexes[0]) == osOK);
	CHECK(osMutexGetOwner(&mutexes[0]) == osThreadGetId());
	CHECK(osMutexRelease(&mutexes[0]) == osOK);
	CHECK(osMutexGetOwner(&mutexes[0]) == NULL);
	mark('r');
}

static void a_robust_mutex_outlives_its_owner(void)
{
	prepare();
	CHECK(make_mutex(0, osMutexRobust | osMutexRecursive));
	spawn(0, dies_with_mutex, NULL, osPriorityNormal);
	spawn(1, inherits_mutex, NULL, osPriorityNormal);
	CHECK(osKernelStart() == osOK);
	CHECK(!strcmp(trace, "r"));
}

/* --- event flags, timers, threads -----------------------------------------------------------------------------------
 */

static struct qk_event_flags flags;

static void waits_all(void *argument)
{
	(void)argument;
	CHECK(osEventFlagsWait(&flags, 3, osFlagsWaitAll, osWaitForever) == 7);
	mark('a');
}

static void waits_any(void *argument)
{
	(void)argument;
	CHECK(osEventFlagsWait(&flags, 5, osFlagsWaitAny | osFlagsNoClear, osWaitForever) == 5);
	mark('b');
}

static void sets_flags(void *argument)
{
	(void)argument;
	CHECK(osEventFlagsWait(&flags, 8, osFlagsWaitAny, 0) == osFlagsErrorResource);
	CHECK(osEventFlagsWait(&flags, 8, osFlagsWaitAny, 3) == osFlagsErrorTimeout);
	CHECK(osEventFlagsSet(&flags, 5) == 5);
	CHECK(osEventFlagsSet(&flags, 2) == 4); /* 1 and 2 were taken by the one who waited for both */
	CHECK(osEventFlagsClear(&flags, 4) == 4 && osEventFlagsGet(&flags) == 0);
	CHECK(osEventFlagsSet(&flags, osFlagsError) == osFlagsErrorParameter);
	mark('c');
}

static void event_flags_wake_for_any_and_for_all(void)
{
	osEventFlagsAttr_t attributes = {.cb_mem = &flags, .cb_size = sizeof flags};

	prepare();
	CHECK(osEventFlagsNew(&attributes) == &flags);
	spawn(0, waits_all, NULL, osPriorityHigh);
	spawn(1, waits_any, NULL, osPriorityHigh);
	spawn(2, sets_flags, NULL, osPriorityLow);
	CHECK(osKernelStart() == osOK);
	CHECK(!strcmp(trace, "bac"));
}

static struct qk_timer timers[2];

static void on_timer(void *argument)
{
	mark((char)(uintptr_t)argument);
}

static void uses_timers(void *argument)
{
	osTimerAttr_t once = {.cb_mem = &timers[0], .cb_size = sizeof timers[0]};
	osTimerAttr_t periodic = {.cb_mem = &timers[1], .cb_size = sizeof timers[1]};

	(void)argument;
	CHECK(osTimerNew(on_timer, osTimerOnce, (void *)'o', &once) == &timers[0]);
	CHECK(osTimerNew(on_timer, osTimerPeriodic, (void *)'p', &periodic) == &timers[1]);
	CHECK(osTimerStart(&timers[0], 25) == osOK && osTimerStart(&timers[1], 10) == osOK);
	CHECK(osTimerIsRunning(&timers[0]));
	CHECK(osDelay(45) == osOK);
	CHECK(!osTimerIsRunning(&timers[0]) && osTimerStop(&timers[0]) == osErrorResource);
	CHECK(osTimerStop(&timers[1]) == osOK);
	CHECK(osDelay(50) == osOK);
	CHECK(osTimerStart(&timers[0], 0) == osErrorParameter);
	mark('.');
}

static void timers_fire_once_or_again_and_again(void)
{
	prepare();
	spawn(0, uses_timers, NULL, osPriorityNormal);
	CHECK(osKernelStart() == osOK);
	CHECK(!strcmp(trace, "ppopp."));
}

static void victim(void *argument)
{
	(void)argument;
	CHECK(osDelay(1000) == osOK);
	mark('x');
}

static void killer(void *argument)
{
	osThreadId_t target = argument;
	osThreadId_t all[8];

	CHECK(osThreadGetState(target) == osThreadBlocked);
	CHECK(osThreadEnumerate(all, 8) == 4 && osThreadGetCount() == 4); /* both, idle and timer */
	CHECK(osThreadTerminate(target) == osOK);
	CHECK(osThreadTerminate(target) == osErrorResource);
	CHECK(osThreadGetState(target) == osThreadTerminated);
	CHECK(osThreadSetPriority(osThreadGetId(), osPriorityHigh) == osOK);
	CHECK(osThreadGetPriority(osThreadGetId()) == osPriorityHigh);
	CHECK(osThreadGetStackSize(osThreadGetId()) == sizeof stacks[0]);
	mark('k');
}

static void a_terminated_thread_is_gone(void)
{
	osThreadId_t target;

	prepare();
	target = spawn(0, victim, NULL, osPriorityHigh);
	spawn(1, killer, target, osPriorityNormal);
	CHECK(osKernelStart() == osOK);
	CHECK(!strcmp(trace, "k"));
}

static void bad_attributes_are_refused(void)
{
	osThreadAttr_t attributes = {.cb_mem = &blocks[0],
	                             .cb_size = sizeof blocks[0],
	                             .stack_mem = stacks[0],
	                             .stack_size = sizeof stacks[0],
	                             .priority = osPriorityNormal};
	osThreadAttr_t broken = attributes;

	prepare();
	CHECK(!osThreadNew(NULL, NULL, &attributes) && !osThreadNew(victim, NULL, NULL));
	broken.stack_mem = NULL;
	CHECK(!osThreadNew(victim, NULL, &broken));
	broken = attributes;
	broken.cb_size = 4;
	CHECK(!osThreadNew(victim, NULL, &broken));
	broken = attributes;
	broken.priority = (osPriority_t)57;
	CHECK(!osThreadNew(victim, NULL, &broken));
	CHECK(!osSemaphoreNew(0, 0, NULL) && !osMessageQueueNew(4, 4, NULL) && !osMutexNew(NULL));
	CHECK(osKernelStart() == osOK);
}

int main(void)
{
	RUN(delays_end_in_the_order_of_their_length);
	RUN(delays_survive_the_wrap_of_the_tick_counter);
	RUN(a_delay_until_the_past_is_refused);
	RUN(equals_share_the_processor_although_a_third_wakes_at_every_tick);
	RUN(the_most_urgent_waiter_gets_the_semaphore_first);
	RUN(waiting_ends_at_its_timeout);
	RUN(messages_arrive_once_and_in_order);
	RUN(an_interrupt_wakes_a_thread_but_never_blocks);
	RUN(the_owner_of_a_mutex_runs_at_its_waiters_priority);
	RUN(inheritance_goes_along_a_chain_of_owners);
	RUN(a_waiter_that_gives_up_takes_its_priority_back);
	RUN(a_robust_mutex_outlives_its_owner);
	RUN(event_flags_wake_for_any_and_for_all);
	RUN(timers_fire_once_or_again_and_again);
	RUN(a_terminated_thread_is_gone);
	RUN(bad_attributes_are_refused);
	return 0;
}
