/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QK_POWER_H
#define QK_POWER_H

#include <stdbool.h>
#include <stdint.h>

/* Power arbiter: decides which of two hot-swappable packs may feed the bus, and notices when they come and go.
 * Pure policy: one call a converter sample, time comes with the sample. */

#define QK_PACK_COUNT 2u /* 0 left, 1 right */

struct qk_power_limits {
	uint16_t pack_mv_cutoff;     /* below: the pack is empty and disabled */
	uint16_t pack_mv_restart;    /* an empty pack counts again above this (hysteresis) */
	uint16_t bus_mv_warning;     /* below: undervoltage is counted */
	uint16_t debounce_samples;   /* contact bounce at insertion: present for so many samples before it counts */
	uint16_t takeover_share_pct; /* the remaining pack has taken over when it carries this share of the load */
	uint16_t pack_mohm;          /* series resistance used to estimate the open-circuit voltage */
};

struct qk_power_sample {
	uint64_t time_us;
	uint16_t pack_mv[QK_PACK_COUNT];
	int16_t pack_ma[QK_PACK_COUNT]; /* positive discharges */
	uint16_t bus_mv;
	uint16_t bus_mv_min;
	uint16_t switch_us;   /* how long the last switchover took, by the power path's capture timer; 0: none */
	uint16_t inrush_ma;   /* peak of an insertion, held by hardware; 0: none */
	uint16_t inrush_ma2s; /* integral of its square since the sample before, held by hardware */
	uint8_t present;      /* bit per pack */
	uint8_t authentic;    /* bit per pack */
};

enum qk_power_event_kind {
	QK_POWER_PACK_REMOVED,
	QK_POWER_PACK_INSERTED,
	QK_POWER_PACK_REJECTED, /* present, but did not prove what it is */
	QK_POWER_TAKEOVER,      /* the pack named carries the load alone */
	QK_POWER_UNDERVOLTAGE,
};

struct qk_power_event {
	enum qk_power_event_kind kind;
	uint8_t pack;
	uint64_t time_us;
	int32_t value;        /* mV of the bus minimum for TAKEOVER and UNDERVOLTAGE, mA of the inrush for PACK_INSERTED */
	uint16_t switch_us;   /* captured switchover time for TAKEOVER */
	uint16_t inrush_ma2s; /* of PACK_INSERTED; UINT16_MAX: as much or more */
};

#define QK_POWER_EVENTS_MAX 6u /* a sample cannot cause more */

struct qk_power {
	struct qk_power_limits limits;
	uint16_t seen_samples[QK_PACK_COUNT];
	bool present[QK_PACK_COUNT]; /* debounced */
	bool empty[QK_PACK_COUNT];
	bool rejected[QK_PACK_COUNT];
	bool undervoltage;
	bool started;
	uint8_t takeover_pending; /* bit per pack that should take over */
	uint16_t switch_us;       /* longest captured since the removal that is pending */
	uint16_t inrush_ma;       /* highest since the first contact of a pack that bounces in */
	uint32_t inrush_ma2s;     /* integral of its square since then */
	uint16_t swap_count[QK_PACK_COUNT];
	uint8_t undervoltage_count;
	uint8_t enabled; /* bit per pack: the decision */
};

void qk_power_init(struct qk_power *power, const struct qk_power_limits *limits);

/* Feeds one sample; returns how many events were written (at most QK_POWER_EVENTS_MAX). */
unsigned qk_power_step(struct qk_power *power, const struct qk_power_sample *sample,
                       struct qk_power_event events[QK_POWER_EVENTS_MAX]);

/* State of charge from voltage and current, 0..100 %. The table is a generic 4.45 V Li-ion curve: good to about
 * 10 %, enough to refuse an update on an empty pack; a gauge gives better. */
uint8_t qk_power_soc_pct(uint16_t pack_mv, int16_t pack_ma, uint16_t pack_mohm);

/* Hold of extremes: remembers them until they are taken. */
struct qk_latch {
	uint16_t bus_mv_min, bus_mv_max;
	int16_t load_ma_max;
	uint16_t since_seq;
};

void qk_latch_clear(struct qk_latch *latch, uint16_t seq);
void qk_latch_feed(struct qk_latch *latch, uint16_t bus_mv_min, uint16_t bus_mv_max, int16_t load_ma);

/* The same for currents of the packs. */
struct qk_pack_latch {
	int16_t ma_min[QK_PACK_COUNT];
	uint16_t since_seq;
};

void qk_pack_latch_clear(struct qk_pack_latch *latch, uint16_t seq);
void qk_pack_latch_feed(struct qk_pack_latch *latch, const int16_t ma_min[QK_PACK_COUNT]);
int16_t qk_power_load_ma(const struct qk_power_sample *sample); /* of both packs, saturated */

#endif
