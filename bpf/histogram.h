/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Exponential histograms of OpenTelemetry's data model, of durations, at scale 3: bucket i holds those of
 * (2^(i/8), 2^((i+1)/8)] s. Plain C without kernel calls, as exchange.h.
 *
 * No bucket's bound is a whole number of ns, since 8 * log2(10^9) is not; so a table of the largest ns of each bucket
 * decides. Where to look in it tells another one, by the duration's first four to eight bits, within one bucket.
 */
#ifndef WIRESPAN_HISTOGRAM_H
#define WIRESPAN_HISTOGRAM_H

#include "types.h"

#define HISTOGRAM_SCALE 3
/* Bucket of slot 1: it begins at 2^-18 s, 4 us. What is not above that is in slot 0. */
#define HISTOGRAM_LOWEST (-18 * 8)
/* 24 octaves, and slot 0. The last one takes all that is longer, which but a timeout nothing is: it begins at 58 s. */
#define HISTOGRAM_SLOTS 193
/* Durations of up to 2^16, 2^20, ..., 2^40 ns, by what is left of them without their last 8, 12, ..., 32 bits. A bucket is
 * 9 % of what it begins at, and a step of these at most 6.25 %: so a step has parts of two buckets at most.
 */
#define SCALES 7
#define STEPS 256

/* A power of two for the verifier's sake. */
#define SLOT_LIMITS 256

/* Made by receiver/histogram.py. */
struct slot_table {
	u64 limit[SLOT_LIMITS]; /* the largest ns of each slot */
	u8 first[SCALES * STEPS]; /* of each step: the slot of its least */
};

struct histogram {
	u32 slots[HISTOGRAM_SLOTS];
	u32 reserved;
};

/* Which of the scales a duration of less than 2^40 ns is on. */
inline_always u32 scale_of(u64 duration)
{
	if (likely(duration < 1ull << 16))
		return 0;
	if (likely(duration < 1ull << 20))
		return 1;
	if (duration < 1ull << 24)
		return 2;
	if (duration < 1ull << 28)
		return 3;
	if (duration < 1ull << 32)
		return 4;
	return duration < 1ull << 36 ? 5 : 6;
}

/* The slot of a duration in ns. */
inline_always u32 slot_of(const volatile struct slot_table *table, u64 duration)
{
	u32 scale = scale_of(duration), slot;

	if (unlikely(duration >> (4 * SCALES + 12)))
		return HISTOGRAM_SLOTS - 1;
	slot = table->first[scale * STEPS + (duration >> (4 * scale + 8) & (STEPS - 1))];
	slot += duration > table->limit[slot];
	return slot;
}

inline_always void count_slot(struct histogram *h, u32 slot)
{
	opaque(slot);
	if (slot < HISTOGRAM_SLOTS)
		h->slots[slot]++;
}

inline_always void add_to_histogram(const volatile struct slot_table *table, struct histogram *h, u64 duration)
{
	count_slot(h, slot_of(table, duration));
}

#endif
