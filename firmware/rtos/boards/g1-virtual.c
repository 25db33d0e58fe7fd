/* SPDX-License-Identifier: Apache-2.0 */
#include "qk_board.h"

#include "qk_key.h"

/* Quark G1 (virtual): no displays, so less heat and a lighter frame. Figures are defaults of the virtual product, not
 * facts about a real one. */

static const uint8_t public_key[32] = QK_PUBLIC_KEY;

const struct qk_board qk_board = {
    .name = "g1-virtual",
    .layout =
        {
            .slot_offset = {0x000000, 0x100000},
            .slot_bytes = 0x100000,
            .state_offset = {0x200000, 0x201000},
        },
    .load_address = 0x01000000,
    .load_bytes_max = 0x200000,
    .public_key = public_key,
    .power =
        {
            .pack_mv_cutoff = 3200,
            .pack_mv_restart = 3400,
            .bus_mv_warning = 3200,
            .debounce_samples = 20,
            .takeover_share_pct = 90,
            .pack_mohm = 250,
        },
    .thermal =
        {
            .zone =
                {
                    {.trip_decic = {700, 800, 900}},       /* ar1 */
                    {.trip_decic = {700, 800, 900}},       /* rtos */
                    {.trip_decic = {INT16_MAX, 480, 550}}, /* battery left */
                    {.trip_decic = {INT16_MAX, 480, 550}}, /* battery right */
                    {.trip_decic = {420, 440, 470}},       /* skin */
                },
            .hysteresis_decic = 20,
            .dwell_ms = 5000,
        },
    .bus_mv_min = 3200,
    .bus_mv_max = 4500,
};
