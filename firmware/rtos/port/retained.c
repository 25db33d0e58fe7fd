/* SPDX-License-Identifier: Apache-2.0 */
#include "qk_retained.h"

#include "qk_crc.h"

bool qk_retained_fault_valid(void)
{
	const struct qk_retained *retained = qk_retained();

	return retained->magic == QK_RETAINED_MAGIC && retained->fault.kind != QK_FAULT_KIND_NONE &&
	       retained->fault_crc == qk_crc32(0, &retained->fault, sizeof retained->fault);
}

void qk_retained_fault_seal(void)
{
	struct qk_retained *retained = qk_retained();

	retained->fault_crc = qk_crc32(0, &retained->fault, sizeof retained->fault);
	retained->fault_is_new = 1;
}
