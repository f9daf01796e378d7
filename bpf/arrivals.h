/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What is known of received bytes before anybody reads them: when they reached the socket's buffer, and the first of
 * them.
 *
 * One producer and no common lock: the kernel tells of arrivals under the socket's lock, in a softirq or in whoever
 * processes the backlog; readers hold the connection's lock. So each side touches nothing but its own end of the ring,
 * and the head is written only while nobody can want it.
 */
#ifndef WIRESPAN_ARRIVALS_H
#define WIRESPAN_ARRIVALS_H

#include "record.h"

/* The first bytes of an arrival whose first byte somebody will want: [begin, begin + captured). */
struct unread_head {
	u64 begin;
	u32 captured;
	u32 reserved;
	u8 bytes[REQUEST_HEAD];
};

struct arrivals {
	u64 accounted_to; /* received bytes that the entries have accounted for */
	u32 written;
	u32 read;
	struct arrival entries[ARRIVALS];
	struct unread_head head;
};

/* Time at which the received byte at `position` reached the socket's buffer; 0 if that was not kept. */
inline_always u64 arrival_of(const struct arrivals *a, u64 position)
{
	u32 read = a->read, written = a->written;

	for (u32 i = 0; i < ARRIVALS; i++) {
		const struct arrival *entry = &a->entries[(read + i) & (ARRIVALS - 1)];
		if (read + i == written)
			return 0;
		if (entry->begin <= position && position < entry->end)
			return entry->time;
	}
	return 0;
}

/* Forget arrivals that were read completely, up to `position`. */
inline_always void drop_arrivals(struct arrivals *a, u64 position)
{
	u32 read = a->read, written = a->written;

	for (u32 i = 0; i < ARRIVALS; i++) {
		if (read == written || a->entries[read & (ARRIVALS - 1)].end > position)
			break;
		read++;
	}
	a->read = read;
}

/* Hand the arrivals that a segment may have read to its record, oldest first, and forget those it did read. */
inline_always void take_arrivals(struct arrivals *a, u64 position, struct arrival *to)
{
#pragma unroll
	for (u32 i = 0; i < ARRIVALS; i++) {
		to[i] = a->entries[(a->read + i) & (ARRIVALS - 1)];
		if (i >= a->written - a->read)
			to[i].time = 0;
	}
	drop_arrivals(a, position);
}

/* Received bytes up to `received_to` are in the socket's buffer, and those up to `position` were read. Returns where
 * what is new begins, or `received_to` if nothing is; `kept`: whether there was room for it.
 */
inline_always u64 add_arrival(struct arrivals *a, u64 position, u64 received_to, u64 now, int *kept)
{
	u64 from = a->accounted_to > position ? a->accounted_to : position;
	u32 written = a->written;
	struct arrival *entry = &a->entries[written & (ARRIVALS - 1)];

	*kept = 1;
	if (received_to <= from)
		return received_to;
	a->accounted_to = received_to;
	if (written - a->read >= ARRIVALS) {
		*kept = 0;
		return from;
	}
	entry->time = now;
	entry->begin = from;
	entry->end = received_to;
	a->written = written + 1;
	return from;
}

/* Whether the head is free, so that the producer may write it. */
inline_always int head_is_free(const struct arrivals *a, u64 position)
{
	return a->head.begin + a->head.captured <= position;
}

#endif
