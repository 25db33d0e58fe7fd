/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "cmsis_os2.h"
#include "qk_fault.h"
#include "qk_kernel.h"
#include "qk_port.h"

/* Stress of the kernel on its real processor (in the emulator): context switches with floating point, a queue,
 * fairness, wake-up times, and both traps that the kernel was built around. Runs from the bootloader's place; results
 * go to the log UART as lines "name value", then DONE or FAIL. */

#define RUN_MS 3000u
#define THREADS 10u

static struct qk_thread blocks[THREADS];
static uint64_t stacks[THREADS][1024 / 8];
static unsigned thread_count;
static volatile bool stop;

void qk_uart_received(unsigned uart, uint8_t byte)
{
	(void)uart;
	(void)byte;
}

void qk_fault_describe(struct qk_wire_fault *fault)
{
	static const char text[] = "FAIL fault\n";

	(void)fault;
	(void)qk_uart_send(QK_UART_LOG, (const uint8_t *)text, sizeof text - 1);
}

static void say(const char *name, uint32_t value)
{
	char line[64];
	size_t size = strlen(name);
	char digits[10];
	unsigned count = 0;

	memcpy(line, name, size);
	line[size++] = ' ';
	do {
		digits[count++] = (char)('0' + value % 10u);
		value /= 10u;
	} while (value);
	while (count) {
		line[size++] = digits[--count];
	}
	line[size++] = '\n';
	(void)qk_uart_send(QK_UART_LOG, (const uint8_t *)line, size);
}

static void spawn(osThreadFunc_t function, void *argument, int priority)
{
	osThreadAttr_t attributes = {.name = "stress",
	                             .cb_mem = &blocks[thread_count],
	                             .cb_size = sizeof blocks[thread_count],
	                             .stack_mem = stacks[thread_count],
	                             .stack_size = sizeof stacks[thread_count],
	                             .priority = (osPriority_t)priority};

	(void)osThreadNew(function, argument, &attributes);
	thread_count++;
}

/* --- equals that compute with floating point: fairness, and no register of one in the other -------------------------
 */

static volatile uint32_t turns[2];
static volatile uint32_t float_errors;

static void compute(void *argument)
{
	uint32_t which = (uint32_t)(uintptr_t)argument;
	float a = 1.0f + (float)which, b = 0.5f, c = 0.25f, d = 0.125f;

	while (!stop) {
		float before = a + b + c + d;

		for (volatile unsigned i = 0; i < 200; i++) {
			a += 1.0f;
			b += 2.0f;
			c += 4.0f;
			d += 8.0f;
		}
		a -= 200.0f;
		b -= 400.0f;
		c -= 800.0f;
		d -= 1600.0f;
		if (a + b + c + d != before) {
			float_errors++;
		}
		turns[which]++;
	}
	osThreadExit();
}

/* --- the third thread of trap 2: wakes at every tick
 * ------------------------------------------------------------------ */

static volatile uint32_t wakes, late_us_max;

static void every_tick(void *argument)
{
	(void)argument;
	while (!stop) {
		uint64_t due_us = (uint64_t)(osKernelGetTickCount() + 1u) * 1000u;

		(void)osDelay(1);
		{
			uint64_t now_us = qk_port_time_us();
			uint32_t late_us = now_us > due_us ? (uint32_t)(now_us - due_us) : 0;

			late_us_max = late_us > late_us_max ? late_us : late_us_max;
		}
		wakes++;
	}
	osThreadExit();
}

/* --- queue and semaphores
 * --------------------------------------------------------------------------------------------- */

static struct qk_message_queue queue;
static uint32_t queue_memory[8];
static volatile uint32_t messages, order_errors;

static void produce(void *argument)
{
	(void)argument;
	for (uint32_t i = 0; !stop; i++) {
		(void)osMessageQueuePut(&queue, &i, 0, 100);
	}
	osThreadExit();
}

static void consume(void *argument)
{
	uint32_t expected = 0, got;

	(void)argument;
	while (!stop) {
		if (osMessageQueueGet(&queue, &got, NULL, 100) == osOK) {
			order_errors += got != expected;
			expected = got + 1u;
			messages++;
		}
	}
	osThreadExit();
}

/* --- mutex under contention
 * ------------------------------------------------------------------------------------------- */

static struct qk_mutex mutex;
static volatile uint32_t shared_a, shared_b, torn;

static void contend(void *argument)
{
	(void)argument;
	while (!stop) {
		(void)osMutexAcquire(&mutex, osWaitForever);
		torn += shared_a != shared_b;
		shared_a++;
		for (volatile unsigned i = 0; i < 50; i++) {
		}
		shared_b++;
		(void)osMutexRelease(&mutex);
		(void)osDelay(3);
	}
	osThreadExit();
}

static void judge(void *argument)
{
	uint32_t idle_ticks, counter_ticks, fair;
	uint64_t began;
	bool good;

	(void)argument;
	/* Trap 1: tickless idle. With nobody running, 20 sleeps must take what the counter says. */
	began = qk_port_time_us();
	idle_ticks = osKernelGetTickCount();
	for (unsigned i = 0; i < 20; i++) {
		(void)osDelay(37);
	}
	idle_ticks = osKernelGetTickCount() - idle_ticks;
	counter_ticks = (uint32_t)((qk_port_time_us() - began) / 1000u);

	spawn(compute, (void *)0, osPriorityNormal);
	spawn(compute, (void *)1, osPriorityNormal);
	spawn(every_tick, NULL, osPriorityRealtime);
	spawn(produce, NULL, osPriorityNormal);
	spawn(consume, NULL, osPriorityAboveNormal);
	spawn(contend, NULL, osPriorityBelowNormal + 20);
	spawn(contend, NULL, osPriorityHigh - 1);
	(void)osDelay(RUN_MS);
	stop = true;
	(void)osDelay(200);

	say("switches", qk_switch_count);
	say("messages", messages);
	say("order_errors", order_errors);
	say("turns_0", turns[0]);
	say("turns_1", turns[1]);
	say("wakes", wakes);
	say("late_us_max", late_us_max);
	say("float_errors", float_errors);
	say("torn", torn);
	say("idle_ticks", idle_ticks);
	say("counter_ticks", counter_ticks);
	fair = turns[0] < turns[1] ? turns[0] * 100u / (turns[1] + 1u) : turns[1] * 100u / (turns[0] + 1u);
	good = !order_errors && !float_errors && !torn && messages > 1000u && turns[0] && turns[1] && fair > 70u &&
	       wakes >= RUN_MS - RUN_MS / 20u && idle_ticks == 20u * 37u && counter_ticks + 2u >= idle_ticks &&
	       counter_ticks <= idle_ticks + 2u && osThreadGetCount() == 3u;
	(void)qk_uart_send(QK_UART_LOG, (const uint8_t *)(good ? "DONE\n" : "FAIL\n"), 5);
	for (;;) {
		(void)osDelay(1000);
	}
}

int main(void)
{
	static const osMessageQueueAttr_t queue_attr = {
	    .cb_mem = &queue, .cb_size = sizeof queue, .mq_mem = queue_memory, .mq_size = sizeof queue_memory};
	static const osMutexAttr_t mutex_attr = {
	    .attr_bits = osMutexPrioInherit, .cb_mem = &mutex, .cb_size = sizeof mutex};

	qk_port_init();
	qk_uart_open(QK_UART_LOG, false);
	(void)osKernelInitialize();
	(void)osMessageQueueNew(8, sizeof(uint32_t), &queue_attr);
	(void)osMutexNew(&mutex_attr);
	spawn(judge, NULL, osPriorityISR - 1);
	(void)osKernelStart();
	return 0;
}
