/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>
#include <sys/reboot.h>
#include <unistd.h>

#include "qk_agent.h"

/* Requests of the host. The same nonce again gets the same answer, and nothing is done twice. */

#define LEAVE_US 200000 /* the answer leaves first */

static int leave(const char *command)
{
	return *command ? qk_system_ask(command) : 0;
}

static int act(uint8_t action)
{
	switch (action) {
	case QK_AR1_ACTION_CONFIRM:
		qk_system_look();
		return qk_system.selftest_passed == qk_system.selftest_count ? qk_system_change(QK_SLOT_CONFIRM) : -EPERM;
	case QK_AR1_ACTION_TRIAL:
		return qk_system_change(QK_SLOT_TRIAL);
	case QK_AR1_ACTION_UNTRIAL:
		return qk_system_change(QK_SLOT_UNTRIAL);
	case QK_AR1_ACTION_VERIFY:
		qk_system_verify();
		return 0;
	case QK_AR1_ACTION_REBOOT:
	case QK_AR1_ACTION_POWER_OFF:
		return 0;
	case QK_AR1_ACTION_REBOOT_BOOTLOADER:
		return leave("bootonce-bootloader");
	case QK_AR1_ACTION_REBOOT_FASTBOOTD:
		return leave("boot-fastboot");
	case QK_AR1_ACTION_REBOOT_EDL:
		return leave("bootonce-edl");
	default:
		return -EINVAL;
	}
}

void qk_request_frame(uint8_t type, const uint8_t *payload, size_t size)
{
	static struct qk_wire_ar1_answer last;
	struct qk_wire_ar1_request request;

	if (type != QK_WIRE_AR1_REQUEST_TYPE || size != sizeof request) {
		return;
	}
	memcpy(&request, payload, sizeof request);
	if (!request.nonce) {
		return;
	}
	if (request.nonce != last.nonce || request.action != last.action) {
		last = (struct qk_wire_ar1_answer){.action = request.action, .nonce = request.nonce};
		last.error = (uint8_t)-act(request.action);
	}
	qk_port_send(&qk_host, QK_WIRE_AR1_ANSWER_TYPE, &last, sizeof last);
	qk_report_system();
	if (!last.error && request.action >= QK_AR1_ACTION_REBOOT && request.action <= QK_AR1_ACTION_POWER_OFF) {
		usleep(LEAVE_US);
		sync();
		reboot(request.action == QK_AR1_ACTION_POWER_OFF ? RB_POWER_OFF : RB_AUTOBOOT);
	}
}
