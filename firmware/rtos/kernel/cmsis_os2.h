/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CMSIS_OS2_H_
#define CMSIS_OS2_H_

#include <stddef.h>
#include <stdint.h>

/* CMSIS-RTOS2 API, the part that is implemented: names, types, signatures and return codes are the official ones (Arm
 * CMSIS documentation, "CMSIS-RTOS C API v2"). README.md lists what is there, what is not, and what is narrower.
 * All memory is the caller's: stacks, control blocks and queue buffers are passed in the attributes. */

#define osWaitForever 0xffffffffu
#define osFlagsWaitAny 0x00000000u
#define osFlagsWaitAll 0x00000001u
#define osFlagsNoClear 0x00000002u
#define osFlagsError 0x80000000u
#define osFlagsErrorUnknown 0xffffffffu
#define osFlagsErrorTimeout 0xfffffffeu
#define osFlagsErrorResource 0xfffffffdu
#define osFlagsErrorParameter 0xfffffffcu
#define osFlagsErrorISR 0xfffffffau
#define osThreadDetached 0x00000000u
#define osMutexRecursive 0x00000001u
#define osMutexPrioInherit 0x00000002u
#define osMutexRobust 0x00000008u

typedef enum {
	osKernelInactive = 0,
	osKernelReady = 1,
	osKernelRunning = 2,
	osKernelError = -1,
} osKernelState_t;

typedef enum {
	osThreadInactive = 0,
	osThreadReady = 1,
	osThreadRunning = 2,
	osThreadBlocked = 3,
	osThreadTerminated = 4,
	osThreadError = -1,
} osThreadState_t;

typedef enum {
	osPriorityNone = 0,
	osPriorityIdle = 1,
	osPriorityLow = 8,
	osPriorityBelowNormal = 16,
	osPriorityNormal = 24,
	osPriorityAboveNormal = 32,
	osPriorityHigh = 40,
	osPriorityRealtime = 48,
	osPriorityISR = 56,
	osPriorityError = -1,
} osPriority_t;

typedef enum { osTimerOnce = 0, osTimerPeriodic = 1 } osTimerType_t;

typedef enum {
	osOK = 0,
	osError = -1,
	osErrorTimeout = -2,
	osErrorResource = -3,
	osErrorParameter = -4,
	osErrorNoMemory = -5,
	osErrorISR = -6,
} osStatus_t;

typedef void (*osThreadFunc_t)(void *argument);
typedef void (*osTimerFunc_t)(void *argument);
typedef void *osThreadId_t;
typedef void *osTimerId_t;
typedef void *osEventFlagsId_t;
typedef void *osMutexId_t;
typedef void *osSemaphoreId_t;
typedef void *osMessageQueueId_t;
typedef uint32_t TZ_ModuleId_t;

typedef struct {
	const char *name;
	uint32_t attr_bits;
	void *cb_mem;
	uint32_t cb_size;
	void *stack_mem;
	uint32_t stack_size;
	osPriority_t priority;
	TZ_ModuleId_t tz_module;
	uint32_t reserved;
} osThreadAttr_t;

typedef struct {
	const char *name;
	uint32_t attr_bits;
	void *cb_mem;
	uint32_t cb_size;
} osTimerAttr_t;

typedef osTimerAttr_t osEventFlagsAttr_t;
typedef osTimerAttr_t osMutexAttr_t;
typedef osTimerAttr_t osSemaphoreAttr_t;

typedef struct {
	const char *name;
	uint32_t attr_bits;
	void *cb_mem;
	uint32_t cb_size;
	void *mq_mem;
	uint32_t mq_size;
} osMessageQueueAttr_t;

osStatus_t osKernelInitialize(void);
osKernelState_t osKernelGetState(void);
osStatus_t osKernelStart(void);
uint32_t osKernelGetTickCount(void);
uint32_t osKernelGetTickFreq(void);
uint32_t osKernelGetSysTimerCount(void);
uint32_t osKernelGetSysTimerFreq(void);

osThreadId_t osThreadNew(osThreadFunc_t func, void *argument, const osThreadAttr_t *attr);
const char *osThreadGetName(osThreadId_t thread_id);
osThreadId_t osThreadGetId(void);
osThreadState_t osThreadGetState(osThreadId_t thread_id);
uint32_t osThreadGetStackSize(osThreadId_t thread_id);
uint32_t osThreadGetStackSpace(osThreadId_t thread_id);
osStatus_t osThreadSetPriority(osThreadId_t thread_id, osPriority_t priority);
osPriority_t osThreadGetPriority(osThreadId_t thread_id);
osStatus_t osThreadYield(void);
void osThreadExit(void);
osStatus_t osThreadTerminate(osThreadId_t thread_id);
uint32_t osThreadGetCount(void);
uint32_t osThreadEnumerate(osThreadId_t *thread_array, uint32_t array_items);

osStatus_t osDelay(uint32_t ticks);
osStatus_t osDelayUntil(uint32_t ticks);

osTimerId_t osTimerNew(osTimerFunc_t func, osTimerType_t type, void *argument, const osTimerAttr_t *attr);
osStatus_t osTimerStart(osTimerId_t timer_id, uint32_t ticks);
osStatus_t osTimerStop(osTimerId_t timer_id);
uint32_t osTimerIsRunning(osTimerId_t timer_id);

osEventFlagsId_t osEventFlagsNew(const osEventFlagsAttr_t *attr);
uint32_t osEventFlagsSet(osEventFlagsId_t ef_id, uint32_t flags);
uint32_t osEventFlagsClear(osEventFlagsId_t ef_id, uint32_t flags);
uint32_t osEventFlagsGet(osEventFlagsId_t ef_id);
uint32_t osEventFlagsWait(osEventFlagsId_t ef_id, uint32_t flags, uint32_t options, uint32_t timeout);

osMutexId_t osMutexNew(const osMutexAttr_t *attr);
osStatus_t osMutexAcquire(osMutexId_t mutex_id, uint32_t timeout);
osStatus_t osMutexRelease(osMutexId_t mutex_id);
osThreadId_t osMutexGetOwner(osMutexId_t mutex_id);

osSemaphoreId_t osSemaphoreNew(uint32_t max_count, uint32_t initial_count, const osSemaphoreAttr_t *attr);
osStatus_t osSemaphoreAcquire(osSemaphoreId_t semaphore_id, uint32_t timeout);
osStatus_t osSemaphoreRelease(osSemaphoreId_t semaphore_id);
uint32_t osSemaphoreGetCount(osSemaphoreId_t semaphore_id);

osMessageQueueId_t osMessageQueueNew(uint32_t msg_count, uint32_t msg_size, const osMessageQueueAttr_t *attr);
osStatus_t osMessageQueuePut(osMessageQueueId_t mq_id, const void *msg_ptr, uint8_t msg_prio, uint32_t timeout);
osStatus_t osMessageQueueGet(osMessageQueueId_t mq_id, void *msg_ptr, uint8_t *msg_prio, uint32_t timeout);
uint32_t osMessageQueueGetCapacity(osMessageQueueId_t mq_id);
uint32_t osMessageQueueGetCount(osMessageQueueId_t mq_id);

#endif
