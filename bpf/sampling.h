/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Which exchanges become spans, decided by the trace id, so that both ends of one decide alike: it is kept if the low 56 bits
 * are at or above a threshold. Thresholds have levels; the record tells by which one it was kept. With a fixed share all have
 * one level, with policies each port has one for what failed, what was slow, and the rest.
 *
 * A budget is held by the levels, which follow the load; until they do, what exceeds it is dropped here.
 */
#ifndef WIRESPAN_SAMPLING_H
#define WIRESPAN_SAMPLING_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "counting.h"
#include "edges.h"
#include "policy.h"
#include "record.h"
#include "siphash.h"
#include "status.h"

#define LEVELS 256
#define ALL_IDS (1ull << 56)

/* Set before load. */
const volatile u8 sampling = 0; /* some exchanges become no span */
const volatile u8 by_policy = 0; /* if so: by policies, not all by level 1 */
const volatile u8 budgeted = 0; /* policies follow the load */
const volatile u8 keep_errors = 1; /* what failed is a class of its own */
const volatile u64 sampling_thresholds[LEVELS] = {}; /* level 0 keeps all */
const volatile u64 id_key[2] = {};
const volatile u64 boot_id = 0;

#define FIXED_LEVEL 1

/* Spans of this machine until the next setting: for what no slot is due. Set by user space at any time. */
s64 budget_left = 0;
/* Of these, what each class leaves to those that come before it: what is usual comes in such numbers that it would take all before
 * the levels follow, and so may what is slow. */
s64 budget_reserved[SAMPLING_CLASSES] = {};
/* Of the room of a class in a slot the last so many spans, which take of budget_left: those before them are due to it. */
s32 room_shared = 0;

/* SipHash input as in receiver/ids.py: address, port and sequence, position, scope. */
inline_always u64 trace_id_low56(const struct exchange *x)
{
	const struct connection_info *c = &x->connection;
	int client = c->role == ROLE_CLIENT;
	const u64 *address = (const u64 *)(client ? c->local_address : c->remote_address);
	return wirespan_trace_low56(id_key[0], id_key[1], address, client ? c->local_port : c->remote_port,
				    c->sequence + (u32)x->position, x->position, c->netns, boot_id);
}

/* 1 if it has no answer, or one that is an error; a status such as HTTP's 404 is none. */
inline_always u32 has_failed(const struct exchange *x, u8 status)
{
	u32 failed = (x->outcome + 0xffu) >> 8 | (status + 0x100u - STATUS_SERVER_ERROR) >> 8;

	opaque(failed);
	if (unlikely(failed))
		count(COUNT_FAILED);
	return failed & keep_errors;
}

/* Whether the budget has room for a span. place: of a slot and a class. */
inline_always int has_room(const struct exchange *x, u32 place)
{
	u32 class = place & 3;
	s32 *left = &policies[place >> 2 & (POLICIES - 1)].left[class], room = 0;

	if (class >= SAMPLING_CLASSES)
		return 0;
	if (*left > 0)
		room = __sync_fetch_and_add(left, -1);
	if (room > room_shared)
		return 1;
	if (room > 0 && budget_left > budget_reserved[class] && __sync_fetch_and_add(&budget_left, -1) > 0)
		return 1;
	count(COUNT_DROPPED_RATE_LIMIT);
	count_dropped(x);
	return 0;
}

inline_always int is_kept_by(const struct exchange *x, u8 level)
{
	u64 threshold = sampling_thresholds[level];

	if (!threshold || (threshold != ALL_IDS && trace_id_low56(x) >= threshold))
		return 1;
	count_in(x->context, COUNT_SAMPLED_OUT);
	return 0;
}

inline_always int is_kept_by_policy(struct exchange *x, u8 status)
{
	u32 slot = policy_slot(&x->connection), which, class, place;
	struct policy *policy = &policies[slot & (POLICIES - 1)];
	u64 duration = duration_of(x);

	which = counted_as(policy->slow, duration, has_failed(x, status));
	opaque(which);
	class = which >> 1;
	if (budgeted) {
		count_policy(slot, which, duration);
		if (unlikely(!policy->used))
			policy->used = 1;
	}
	if (class >= SAMPLING_CLASSES)
		return 0;
	x->connection.sampling = policy->levels[class];
	place = slot << 2 | class;
	opaque(place); /* one value on the stack, where all together have 512 bytes before Linux 6.13 */
	return is_kept_by(x, x->connection.sampling) && (!budgeted || has_room(x, place));
}

/* Whether an exchange that has ended becomes a span; writes down by which level. */
inline_always int is_sampled(struct exchange *x, u8 status)
{
	if (by_policy)
		return is_kept_by_policy(x, status);
	x->connection.sampling = FIXED_LEVEL;
	return is_kept_by(x, FIXED_LEVEL);
}

#endif
