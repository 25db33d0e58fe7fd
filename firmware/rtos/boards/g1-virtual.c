/* SPDX-License-Identifier: Apache-2.0 */
#include "qk_virtual.h"

/* Quark G1 (virtual): no displays, so less heat, and a lighter frame. */

static const uint8_t public_key[32] = QK_PUBLIC_KEY;

const struct qk_board qk_board = {
    .name = "g1-virtual",
    .layout = QK_VIRTUAL_LAYOUT,
    .load_address = QK_VIRTUAL_LOAD_ADDRESS,
    .load_bytes_max = QK_VIRTUAL_LOAD_BYTES_MAX,
    .public_key = public_key,
    .power = QK_VIRTUAL_POWER,
    .thermal =
        {
            .zone =
                {
                    {.trip_decic = {700, 800, 900}},       /* ar1 */
                    {.trip_decic = {700, 800, 900}},       /* rtos */
                    {.trip_decic = {INT16_MAX, 480, 550}}, /* battery left */
                    {.trip_decic = {INT16_MAX, 480, 550}}, /* battery right */
                    {.trip_decic = {380, 400, 420}},       /* skin */
                },
            .hysteresis_decic = 20,
            .dwell_ms = 5000,
        },
    .bus_mv_min = QK_VIRTUAL_BUS_MV_MIN,
    .bus_mv_max = QK_VIRTUAL_BUS_MV_MAX,
};
