/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Which exchanges become spans, decided by the trace id, so that both ends of one decide alike: it is kept if the low 56 bits
 * are at or above a threshold. Thresholds have levels, of which user space says at any time which one holds; the record tells
 * its level. What failed has a level of its own.
 *
 * A budget is held by the levels, which follow the load; until they do, what exceeds it is dropped here.
 */
#ifndef WIRESPAN_SAMPLING_H
#define WIRESPAN_SAMPLING_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "counting.h"
#include "edges.h"
#include "record.h"
#include "siphash.h"
#include "status.h"

#define LEVELS 256
#define ALL_IDS (1ull << 56)

/* Set before load. */
const volatile u8 sampling = 0; /* some exchanges become no span */
const volatile u8 budgeted = 0;
const volatile u64 sampling_thresholds[LEVELS] = {}; /* level 0 keeps all */
const volatile u64 id_key[2] = {};
const volatile u64 boot_id = 0;

enum sampling_class {
	SAMPLING_REST,
	SAMPLING_FAILED,
	SAMPLING_CLASSES,
};

enum sampling_class sampling_class_names;

/* Set by user space at any time. */
u8 sampling_levels[SAMPLING_CLASSES] = {};
s64 budget_left[SAMPLING_CLASSES] = {};

/* SipHash input as in receiver/ids.py: address, port and sequence, position, scope. */
inline_always u64 trace_id_low56(const struct exchange *x)
{
	const struct connection_info *c = &x->connection;
	int client = c->role == ROLE_CLIENT;
	const u64 *address = (const u64 *)(client ? c->local_address : c->remote_address);
	return wirespan_trace_low56(id_key[0], id_key[1], address, client ? c->local_port : c->remote_port,
				    c->sequence + (u32)x->position, x->position, c->netns, boot_id);
}

inline_always enum sampling_class sampling_class_of(const struct exchange *x, u8 status)
{
	if (!x->outcome && status < STATUS_SERVER_ERROR)
		return SAMPLING_REST;
	count(COUNT_FAILED);
	return SAMPLING_FAILED;
}

/* Whether an exchange that has ended becomes a span; writes down by which level. */
inline_always int is_sampled(struct exchange *x, u8 status)
{
	enum sampling_class class = budgeted ? sampling_class_of(x, status) : SAMPLING_REST;
	u8 level = sampling_levels[class];
	u64 threshold = sampling_thresholds[level];

	if (threshold && (threshold == ALL_IDS || trace_id_low56(x) < threshold)) {
		count_in(x->context, COUNT_SAMPLED_OUT);
		return 0;
	}
	if (budgeted && __sync_fetch_and_add(&budget_left[class], -1) <= 0) {
		count(COUNT_DROPPED_RATE_LIMIT);
		count_dropped(x);
		return 0;
	}
	x->connection.sampling = level;
	return 1;
}

#endif
