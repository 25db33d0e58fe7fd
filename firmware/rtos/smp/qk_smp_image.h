/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QK_SMP_IMAGE_H
#define QK_SMP_IMAGE_H

#include "qk_smp.h"

/* The image group, apart from the rest of the server because it is the only part that writes flash. */

struct qk_smp_reply {
	struct qk_cbor_writer writer;
	enum qk_smp_error error;
	const char *reason; /* in words, for the person at the other end */
};

void qk_smp_error(struct qk_smp_reply *reply, enum qk_smp_error error, const char *reason);

void qk_smp_image_list(struct qk_smp_server *server, struct qk_smp_reply *reply);
void qk_smp_image_choose(struct qk_smp_server *server, struct qk_smp_reply *reply, const uint8_t *payload, size_t size);
void qk_smp_image_upload(struct qk_smp_server *server, struct qk_smp_reply *reply, const uint8_t *payload, size_t size);
void qk_smp_image_erase(struct qk_smp_server *server, struct qk_smp_reply *reply, const uint8_t *payload, size_t size);
void qk_smp_image_slots(struct qk_smp_server *server, struct qk_smp_reply *reply);

#endif
