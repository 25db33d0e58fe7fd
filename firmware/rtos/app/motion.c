/* SPDX-License-Identifier: Apache-2.0 */
#include "qk_app.h"

#include <string.h>

#include "qk_plant.h"
#include "qk_port.h"

/* The inertial sensor fills a FIFO at its own rate; on the virtual boards the FIFO lies in the mailbox. Samples leave
 * in blocks, as they came: nothing is filtered or resampled here. */

#define MOTION_OFFSET 0xb100u
#define RING_OFFSET 0xb120u
#define RING_SAMPLES 512u

static uint32_t read_index;
static struct qk_wire_imu block;

static void fetch(struct qk_wire_plant_motion *out)
{
	memcpy(out, (const uint8_t *)(uintptr_t)qk_mailbox() + MOTION_OFFSET, sizeof *out);
	qk_memory_barrier();
}

/* Sends what the block holds, if anything. What the line does not take is missing from the index, and so noticed. */
static void send_block(void)
{
	uint16_t seq;

	if (block.count) {
		(void)qk_stream_send(QK_WIRE_IMU_TYPE, &block, sizeof block, &seq);
		block.first_index += block.count;
	}
	block.count = 0;
}

/* Only samples that follow each other by one period share a block; times are whole microseconds, periods are not. */
static void collect(const struct qk_wire_plant_inertial *raw, uint32_t period_ns)
{
	uint64_t due_us = block.first_us + (uint64_t)block.count * block.period_ns / 1000u;

	if (block.count && (raw->time_us + 1u < due_us || raw->time_us > due_us + 1u || block.period_ns != period_ns)) {
		send_block();
	}
	if (!block.count) {
		memset(block.accel_mg, 0, sizeof block.accel_mg);
		memset(block.gyro_ddps, 0, sizeof block.gyro_ddps);
		block.first_us = raw->time_us;
		block.period_ns = period_ns;
	}
	memcpy((uint8_t *)block.accel_mg + block.count * sizeof raw->accel_mg, raw->accel_mg, sizeof raw->accel_mg);
	memcpy((uint8_t *)block.gyro_ddps + block.count * sizeof raw->gyro_ddps, raw->gyro_ddps, sizeof raw->gyro_ddps);
	if (++block.count == QK_WIRE_IMU_SAMPLES) {
		send_block();
	}
}

void qk_motion_start(void)
{
	struct qk_wire_plant_motion motion;

	fetch(&motion);
	read_index = motion.write_index;
}

void qk_motion_drain(void)
{
	struct qk_wire_plant_motion motion;

	fetch(&motion);
	if (motion.write_index - read_index > RING_SAMPLES) {
		uint32_t lost = motion.write_index - read_index - RING_SAMPLES / 2u;

		send_block();
		read_index += lost;
		block.first_index += lost;
	}
	while (read_index != motion.write_index) {
		struct qk_wire_plant_inertial raw;
		const uint8_t *ring = (const uint8_t *)(uintptr_t)qk_mailbox() + RING_OFFSET;

		memcpy(&raw, ring + read_index % RING_SAMPLES * sizeof raw, sizeof raw);
		collect(&raw, motion.period_ns);
		read_index++;
	}
	if (!motion.period_ns) {
		send_block(); /* switched off: what is left */
	}
}
