/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Exponential histograms of OpenTelemetry's data model, of durations, at scale 3: bucket i holds those of
 * (2^(i/8), 2^((i+1)/8)] s. Plain C without kernel calls, as exchange.h.
 *
 * No bucket's bound is a whole number of ns, since 8 * log2(10^9) is not; so a table of the largest ns of each bucket
 * decides. Where to look in it tells the logarithm's whole part and the next three bits, within two buckets.
 */
#ifndef WIRESPAN_HISTOGRAM_H
#define WIRESPAN_HISTOGRAM_H

#include "types.h"

#define HISTOGRAM_SCALE 3
/* Bucket of slot 1: it begins at 2^-18 s, 4 us. What is not above that is in slot 0. */
#define HISTOGRAM_LOWEST (-18 * 8)
/* 24 octaves, and slot 0. The last one takes all that is longer, which but a timeout nothing is: it begins at 58 s. */
#define HISTOGRAM_SLOTS 193
/* Of ns: the octave that 2^-18 s lies in, and the number of octaves up to that of 2^6 s. */
#define FIRST_OCTAVE 11
#define OCTAVES 25

/* Sizes are powers of two for the verifier's sake. */
#define SLOT_LIMITS 256
#define CELLS 256
#define BYTES 256

/* Made by receiver/histogram.py. */
struct slot_table {
	u64 limit[SLOT_LIMITS]; /* the largest ns of each slot */
	u8 first[CELLS]; /* of each eighth of an octave: the slot of its least */
	u8 log2[BYTES]; /* of each byte: its highest bit */
};

struct histogram {
	u32 slots[HISTOGRAM_SLOTS];
	u32 reserved;
};

/* `size` if the value does not fit so many bits, else 0; of less than 2^31. Without a branch: the verifier would go either way, and
 * from each of its ends all that follows.
 */
inline_always u32 shift_beyond(u32 value, u32 size)
{
	u32 shift = (((1u << size) - 1 - value) >> 31) * size;

	opaque(shift);
	return shift;
}

/* Of less than 2^31. */
inline_always u32 log2_of(const volatile struct slot_table *table, u32 value)
{
	u32 high = shift_beyond(value, 16), low;

	value >>= high;
	low = shift_beyond(value, 8);
	return high + low + table->log2[value >> low & (BYTES - 1)];
}

/* The slot of a duration in ns. */
inline_always u32 slot_of(const volatile struct slot_table *table, u64 duration)
{
	u32 octave, cell, slot;

	if (duration < 1 << FIRST_OCTAVE)
		return 0;
	if (duration >> (FIRST_OCTAVE + OCTAVES))
		return HISTOGRAM_SLOTS - 1;
	octave = FIRST_OCTAVE + log2_of(table, duration >> FIRST_OCTAVE);
	cell = (octave - FIRST_OCTAVE) * 8 + (duration >> (octave - 3) & 7);
	slot = table->first[cell & (CELLS - 1)];
	slot += duration > table->limit[slot];
	slot += duration > table->limit[slot & (SLOT_LIMITS - 1)];
	return slot;
}

inline_always void add_to_histogram(const volatile struct slot_table *table, struct histogram *h, u64 duration)
{
	u32 slot = slot_of(table, duration);

	opaque(slot);
	if (slot < HISTOGRAM_SLOTS)
		h->slots[slot]++;
}

#endif
