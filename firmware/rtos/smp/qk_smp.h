/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QK_SMP_H
#define QK_SMP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "qk_boot.h"
#include "qk_cbor.h"

/* SMP server: OS group (echo, params, reset, bootloader info), image group (state, upload, erase, slot info) and a
 * group of our own. The same code answers in the application and in the bootloader's serial recovery. Source of the
 * messages: Zephyr and MCUmgr documentation of SMP groups 0 and 1. */

#define QK_SMP_MESSAGE_MAX 2044u /* decoded frame 2048 with length and CRC */
#define QK_SMP_FRAME_MAX 2048u

#define QK_SMP_GROUP_QUARK 64u /* first user group */
enum { QK_SMP_QUARK_IDENTITY = 0, QK_SMP_QUARK_HEALTH = 1, QK_SMP_QUARK_FAULT = 2 };

enum qk_smp_error {
	QK_SMP_EOK = 0,
	QK_SMP_EUNKNOWN = 1,
	QK_SMP_EINVAL = 3,
	QK_SMP_ENOENT = 5,
	QK_SMP_EBADSTATE = 6,
	QK_SMP_EMSGSIZE = 7,
	QK_SMP_ENOTSUP = 8,
	QK_SMP_EBUSY = 10,
	QK_SMP_EACCESS = 11,
};

/* What the server asks of its surroundings. Every pointer may be NULL: the command then answers ENOTSUP. */
struct qk_smp_hooks {
	void (*reset)(void); /* after the answer has left */
	void (*identity)(struct qk_cbor_writer *writer);
	void (*health)(struct qk_cbor_writer *writer);
	size_t (*fault)(const void **record); /* crash record, 0 if there is none */
};

struct qk_smp_server {
	const struct qk_boot_layout *layout;
	const struct qk_image_policy *policy;
	const struct qk_smp_hooks *hooks;
	const char *mode;     /* "application" or "recovery" */
	uint8_t running_slot; /* QK_SLOT_NONE in the bootloader */
	uint8_t buffer_count; /* whole frames that can wait to be handled */
	bool reset_requested;
	struct {
		bool open;
		uint8_t slot;
		uint32_t offset, size, erased;
		bool has_sha;
		uint8_t sha[32];
	} upload;
};

void qk_smp_init(struct qk_smp_server *server, const struct qk_boot_layout *layout,
                 const struct qk_image_policy *policy, const struct qk_smp_hooks *hooks, uint8_t running_slot);

/* Answers one request. Returns the size of the response in `out` (QK_SMP_MESSAGE_MAX bytes), 0 for silence. */
size_t qk_smp_handle(struct qk_smp_server *server, const uint8_t *request, size_t size, uint8_t *out);

#endif
