/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What is known of received bytes before anybody reads them: when they reached the socket's buffer, and the first of
 * them.
 *
 * One producer and no common lock: the kernel tells of arrivals under the socket's lock, in a softirq or in whoever
 * processes the backlog, often on another CPU than the reader's. So only the producer writes here. It uses again what the
 * socket's own position says is read; a reader whose hook is late finds that what it wanted has changed.
 *
 * Cache lines that both sides write cost more than all else a hook does, so the common case, one packet and at most 64
 * bytes, takes two lines.
 */
#ifndef WIRESPAN_ARRIVALS_H
#define WIRESPAN_ARRIVALS_H

#include "record.h"

struct arrivals {
	u64 accounted_to; /* received bytes that the entries have accounted for */
	u64 latest; /* time of the last arrival */
	u64 head_begin; /* the first bytes of an arrival: [head_begin, head_begin + head_captured) */
	u32 head_captured;
	u32 reserved;
	struct arrival entries[ARRIVALS]; /* in no order */
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

/* Received bytes up to `received_to` are in the socket's buffer, and those up to `read_to` were read. Returns where what
 * is new begins, or `received_to` if nothing is; `kept`: whether there was room for it.
 */
inline_always u64 add_arrival(struct arrivals *a, u64 read_to, u64 received_to, u64 now, int *kept)
{
	u64 from = a->accounted_to > read_to ? a->accounted_to : read_to;

	*kept = 1;
	if (received_to <= from)
		return received_to;
	a->accounted_to = received_to;
	a->latest = now;
	for (u32 i = 0; i < ARRIVALS; i++) {
		struct arrival *entry = &a->entries[i];

		if (entry->end > read_to)
			continue;
		entry->end = 0;
		barrier();
		entry->time = now;
		entry->begin = from;
		barrier();
		entry->end = received_to;
		return from;
	}
	*kept = 0;
	return from;
}

/* Whether nobody can want the head any more. */
inline_always int head_is_free(const struct arrivals *a, u64 read_to)
{
	return a->head_begin + a->head_captured <= read_to;
}

#endif
