/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What is known of received bytes before anybody reads them: when they reached the socket's buffer, and the first of
 * them.
 *
 * One producer and no common lock: the kernel tells of arrivals under the socket's lock, in a softirq or in whoever
 * processes the backlog, often on another CPU than the reader's. So only the producer writes here, and it looks at how far
 * the reader has come only when it needs room: a cache line that one side writes and the other reads is what costs most in
 * a hook.
 */
#ifndef WIRESPAN_ARRIVALS_H
#define WIRESPAN_ARRIVALS_H

#include "record.h"

struct arrivals {
	u64 accounted_to; /* received bytes that the entries have accounted for */
	u64 released_to; /* nobody will ask for the arrival of bytes before */
	u64 latest; /* time of the last arrival */
	u64 head_begin; /* the first bytes of an arrival: [head_begin, head_begin + head_captured) */
	u32 head_captured;
	u32 reserved;
	struct arrival entries[ARRIVALS]; /* in no order */
	u8 line_end[56];
	u8 head[REQUEST_HEAD];
};

/* Time at which the received byte at `position` reached the socket's buffer; 0 if that is not kept. */
inline_always u64 arrival_of(const struct arrivals *a, u64 position)
{
	for (u32 i = 0; i < ARRIVALS; i++) {
		const struct arrival *entry = &a->entries[i];
		u64 time = entry->time;

		barrier(); /* the producer invalidates an entry, then writes its time */
		if (entry->begin <= position && position < entry->end)
			return time;
	}
	return 0;
}

/* Hand the arrivals of bytes from `position` on to the record of a segment. */
inline_always void take_arrivals(const struct arrivals *a, u64 position, struct arrival *to)
{
#pragma unroll
	for (u32 i = 0; i < ARRIVALS; i++) {
		to[i] = a->entries[i];
		if (to[i].end <= position)
			to[i].time = 0;
	}
}

/* An entry that may be overwritten; NULL if all may still be asked for. */
inline_always struct arrival *released_arrival(struct arrivals *a)
{
	for (u32 i = 0; i < ARRIVALS; i++)
		if (a->entries[i].end <= a->released_to)
			return &a->entries[i];
	return NULL;
}

/* Received bytes up to `received_to` are in the socket's buffer, and those up to `read_to` were read. Returns where what
 * is new begins, or `received_to` if nothing is. reader: how far the reader's hooks have come. `kept`: whether there was
 * room.
 */
inline_always u64 add_arrival(struct arrivals *a, const u64 *reader, u64 read_to, u64 received_to, u64 now, int *kept)
{
	u64 from = a->accounted_to > read_to ? a->accounted_to : read_to;
	struct arrival *entry;

	*kept = 1;
	if (received_to <= from)
		return received_to;
	a->accounted_to = received_to;
	a->latest = now;
	entry = released_arrival(a);
	if (!entry) {
		a->released_to = *reader;
		entry = released_arrival(a);
	}
	*kept = entry != NULL;
	if (!entry)
		return from;
	entry->end = 0;
	barrier();
	entry->time = now;
	entry->begin = from;
	barrier();
	entry->end = received_to;
	return from;
}

/* Whether the bytes of the head were read. A reader whose hook is late finds that the head has changed. */
inline_always int head_is_free(const struct arrivals *a, u64 read_to)
{
	return a->head_begin + a->head_captured <= read_to;
}

#endif
