/* SPDX-License-Identifier: Apache-2.0 */
#include <elf.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>

#include "qk_agent.h"

#define ZONES 4
#define NO_SENSOR (-32768)

static struct qk_wire_hello identity;
static uint8_t boot_state, locked;
static int16_t fed[ZONES] = {NO_SENSOR, NO_SENSOR, NO_SENSOR, NO_SENSOR};

/* The linker's build id, from the notes of the program that runs. */
static void build_id(uint8_t out[8])
{
	const Elf64_Phdr *header = (const Elf64_Phdr *)getauxval(AT_PHDR);
	unsigned long count = getauxval(AT_PHNUM);
	uintptr_t base = 0; /* where the program lies, if not where it was linked to */

	for (; header && count; header++, count--) {
		const uint8_t *at, *end;

		if (header->p_type == PT_PHDR) {
			base = getauxval(AT_PHDR) - header->p_vaddr;
		}
		at = (const uint8_t *)(base + header->p_vaddr);
		end = at + header->p_memsz;

		while (header->p_type == PT_NOTE && end - at >= (long)sizeof(Elf64_Nhdr)) {
			Elf64_Nhdr note;

			memcpy(&note, at, sizeof note);
			at += sizeof note + ((note.n_namesz + 3u) & ~3u);
			if (note.n_type == NT_GNU_BUILD_ID && note.n_descsz >= 8) {
				memcpy(out, at, 8);
				return;
			}
			at += (note.n_descsz + 3u) & ~3u;
		}
	}
}

/* Index of a word of the command line among names; 0 for any other. */
static uint8_t among(const char *key, const char *const *names, uint8_t count)
{
	char value[32];

	if (!qk_cmdline(key, value, sizeof value)) {
		for (uint8_t i = 0; i < count; i++) {
			if (!strcmp(value, names[i])) {
				return i;
			}
		}
	}
	return 0;
}

void qk_report_identify(void)
{
	static const char *const reasons[] = {"power_on", "software", "watchdog", "fault", "brownout", "external"};
	static const char *const states[] = {"unknown", "green", "yellow", "orange", "red"};
	static const char *const locks[] = {"unlocked", "locked"};
	static const char *const given_up[] = {"", "not_confirmed", "bad_image"};
	static const uint8_t rollback[] = {QK_ROLLBACK_REASON_NONE, QK_ROLLBACK_REASON_NOT_CONFIRMED,
	                                   QK_ROLLBACK_REASON_BAD_IMAGE};
	char serial[sizeof identity.serial + 1] = "";

	identity = (struct qk_wire_hello){
	    .layout_hash = QK_TELEMETRY_LAYOUT_HASH,
	    .protocol_version = 1,
	    .boot_id = qk_boot_id(),
	    .boot_count = 1,
	    .board = QK_BOARD,
	    .version_major = QK_VERSION_MAJOR,
	    .version_minor = QK_VERSION_MINOR,
	    .version_revision = QK_VERSION_REVISION,
	    .reset_reason = among("androidboot.bootreason", reasons, 6),
	    .rollback_reason = rollback[among("androidboot.quark.given_up", given_up, 3)],
	};
	boot_state = among("androidboot.verifiedbootstate", states, 5);
	locked = among("androidboot.vbmeta.device_state", locks, 2);
	build_id(identity.build_id);
	qk_cmdline("androidboot.serialno", serial, sizeof serial);
	memcpy(identity.serial, serial, strlen(serial));
}

static void report_hello(void)
{
	identity.slot = (uint8_t)qk_system.slot;
	identity.image_state =
	    qk_system.slot_state[qk_system.slot] & QK_SLOT_SUCCESSFUL ? QK_IMAGE_STATE_CONFIRMED : QK_IMAGE_STATE_TRIAL;
	identity.selftest_count = qk_system.selftest_count;
	identity.selftest_passed = qk_system.selftest_passed;
	identity.uptime_ms = (uint32_t)(qk_time_us() / 1000u);
	qk_port_send(&qk_host, QK_WIRE_HELLO_TYPE, &identity, sizeof identity);
}

void qk_report_system(void)
{
	struct qk_wire_ar1_system out = {
	    .slot = (uint8_t)qk_system.slot,
	    .boot_state = boot_state,
	    .locked = locked,
	    .verity_state = qk_system.verity_state,
	    .verity_failed_blocks = qk_system.failed_blocks,
	    .verity_corrected_errors = qk_system.corrected_errors,
	};

	qk_system_look();
	memcpy(out.slot_state, qk_system.slot_state, sizeof out.slot_state);
	for (unsigned i = 0; i < 2; i++) {
		const struct qk_vbmeta *v = &qk_system.vbmeta[i];

		memcpy((uint8_t *)out.slot_version + i * sizeof v->version, &v->version, sizeof v->version);
		memcpy((uint8_t *)out.rollback_index + i * sizeof v->rollback_index, &v->rollback_index,
		       sizeof v->rollback_index);
		memcpy(i ? out.vbmeta_b_digest : out.vbmeta_a_digest, v->digest, sizeof v->digest);
	}
	report_hello();
	qk_port_send(&qk_host, QK_WIRE_AR1_SYSTEM_TYPE, &out, sizeof out);
}

void qk_report_verity(const struct qk_hashtree *tree, uint32_t blocks, uint32_t failed, uint32_t corrected, int error)
{
	struct qk_wire_ar1_verity event = {
	    .blocks = blocks, .failed_blocks = failed, .corrected_errors = corrected, .error = (uint8_t)-error};

	strncpy(event.partition, tree->name, sizeof event.partition);
	memcpy(event.root_digest, tree->root, sizeof event.root_digest);
	qk_port_send(&qk_host, QK_WIRE_AR1_VERITY_TYPE, &event, sizeof event);
}

/* The microcontroller asks whether we live, and tells how warm it is here. */
void qk_link_frame(uint8_t type, const uint8_t *payload, size_t size)
{
	struct qk_wire_link_request request;
	struct qk_wire_link_answer answer;

	if (type != QK_WIRE_LINK_REQUEST_TYPE || size != sizeof request) {
		return;
	}
	memcpy(&request, payload, sizeof request);
	memcpy(fed, request.zone_decic, sizeof fed);
	answer = (struct qk_wire_link_answer){
	    .nonce = request.nonce,
	    .version = (uint32_t)QK_VERSION_MAJOR << 24 | (uint32_t)QK_VERSION_MINOR << 16 | QK_VERSION_REVISION,
	    .slot = (uint8_t)qk_system.slot,
	    .healthy = qk_system.selftest_count && qk_system.selftest_passed == qk_system.selftest_count,
	};
	qk_port_send(&qk_link, QK_WIRE_LINK_ANSWER_TYPE, &answer, sizeof answer);
}

static void report_load(void)
{
	static unsigned long long before_busy, before_all;
	struct qk_wire_ar1_load load = {0};
	unsigned long long t[8] = {0}, all = 0, busy;
	char line[128];
	unsigned runnable = 0;
	FILE *file = fopen("/proc/stat", "r");

	if (file) {
		if (fscanf(file, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &t[0], &t[1], &t[2], &t[3], &t[4], &t[5], &t[6],
		           &t[7]) == 8) {
			for (int i = 0; i < 8; i++) {
				all += t[i];
			}
		}
		while (fgets(line, sizeof line, file)) {
			sscanf(line, "procs_running %u", &runnable);
		}
		fclose(file);
	}
	busy = all - t[3] - t[4];
	if (all > before_all) {
		load.cpu_permille = (uint16_t)(1000u * (busy - before_busy) / (all - before_all));
	}
	before_busy = busy;
	before_all = all;
	load.runnable = (uint16_t)runnable;
	file = fopen("/proc/meminfo", "r");
	while (file && fgets(line, sizeof line, file)) {
		unsigned long kib;

		if (sscanf(line, "MemTotal: %lu", &kib) == 1) {
			load.memory_total_kib = (uint32_t)kib;
		} else if (sscanf(line, "MemAvailable: %lu", &kib) == 1) {
			load.memory_free_kib = (uint32_t)kib;
		}
	}
	if (file) {
		fclose(file);
	}
	qk_port_send(&qk_host, QK_WIRE_AR1_LOAD_TYPE, &load, sizeof load);
}

static void report_thermal(void)
{
	struct qk_wire_ar1_thermal message = {0};

	for (int i = 0; i < ZONES; i++) {
		char path[64];
		int millic;
		FILE *file;

		message.zone_decic[i] = fed[i];
		snprintf(path, sizeof path, "/sys/class/thermal/thermal_zone%d/temp", i);
		file = fopen(path, "r");
		if (file) {
			if (fscanf(file, "%d", &millic) == 1) {
				message.zone_decic[i] = (int16_t)(millic / 100);
			}
			fclose(file);
		}
	}
	qk_port_send(&qk_host, QK_WIRE_AR1_THERMAL_TYPE, &message, sizeof message);
}

void qk_report_all(void)
{
	qk_report_system();
	report_load();
	report_thermal();
}
