/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QK_VIRTUAL_H
#define QK_VIRTUAL_H

#include "qk_board.h"
#include "qk_key.h"

/* What the virtual boards have in common: QEMU's mps3-an547 and the packs of the plant model. Figures are defaults of
 * virtual products, not facts about real ones. */

#define QK_VIRTUAL_LAYOUT                                                                                              \
	{                                                                                                                  \
	    .slot_offset = {0x000000, 0x100000},                                                                           \
	    .slot_bytes = 0x100000,                                                                                        \
	    .state_offset = {0x200000, 0x201000},                                                                          \
	}
#define QK_VIRTUAL_LOAD_ADDRESS 0x01000000
#define QK_VIRTUAL_LOAD_BYTES_MAX 0x200000

#define QK_VIRTUAL_POWER                                                                                               \
	{                                                                                                                  \
	    .pack_mv_cutoff = 3200,                                                                                        \
	    .pack_mv_restart = 3400,                                                                                       \
	    .bus_mv_warning = 3200,                                                                                        \
	    .debounce_samples = 20,                                                                                        \
	    .takeover_share_pct = 90,                                                                                      \
	    .pack_mohm = 250,                                                                                              \
	}
#define QK_VIRTUAL_BUS_MV_MIN 3200
#define QK_VIRTUAL_BUS_MV_MAX 4500

#endif
