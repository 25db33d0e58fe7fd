/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "qk_app.h"
#include "qk_fault.h"
#include "qk_port.h"
#include "qk_retained.h"

#define WATCHDOG_MS 3000u

void qk_uart_received(unsigned uart, uint8_t byte)
{
	if (uart == QK_UART_LINK) {
		qk_command_byte(byte);
	} else if (uart == QK_UART_DOORBELL) {
		qk_sense_doorbell();
	} else if (uart == QK_UART_AR1) {
		qk_peer_byte(byte);
	}
}

void qk_fault_describe(struct qk_wire_fault *fault)
{
	const struct qk_thread *thread = qk_current;

	if (thread && thread->name) {
		strncpy(fault->thread, thread->name, sizeof fault->thread);
	}
	fault->slot = qk_retained()->slot;
	fault->version_major = QK_VERSION_MAJOR;
	fault->version_minor = QK_VERSION_MINOR;
	fault->version_revision = QK_VERSION_REVISION;
	fault->uptime_ms = qk_tick_now();
	fault->boot_id = qk_identity_boot_id();
	memcpy(fault->build_id, qk_identity_build_id(), sizeof fault->build_id);
}

int main(void)
{
	qk_port_init();
	qk_watchdog_start(WATCHDOG_MS);
	(void)osKernelInitialize();
	qk_identity_start();
	qk_link_start();
	qk_stream_start(qk_identity_boot_id());
	qk_sense_start();
	qk_peer_start();
	qk_report_start();
	qk_command_start();
	qk_guard_start();
	qk_sabotage_start();
	qk_uart_open(QK_UART_LOG, false);
	(void)qk_uart_send(QK_UART_LOG, (const uint8_t *)"app: started\n", 13);
	qk_uart_open(QK_UART_LINK, true);
	qk_uart_open(QK_UART_DOORBELL, true);
	qk_uart_open(QK_UART_AR1, true);
	(void)osKernelStart();
	return 0;
}
