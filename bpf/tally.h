/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Metrics of connections: looking up an edge costs more than adding to it, and the exchanges of a connection are mostly of one
 * edge. So a connection keeps what its last ones were, and adds them to their edge together: when there are TALLIED, when one is of
 * another edge, when the connection ends, and whenever user space lets the kernel look for quiet ones.
 *
 * All under the connection's lock.
 */
#ifndef WIRESPAN_TALLY_H
#define WIRESPAN_TALLY_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "edges.h"
#include "turns.h"

#define NO_SLOT 255 /* of a time that is not known */

_Static_assert(HISTOGRAM_SLOTS <= NO_SLOT, "slots are bytes");

/* In a word: enum protocol, enum status_class, enum outcome, enum peer_class. */
inline_always u32 kind_of(const struct exchange *x, u8 protocol, u8 status)
{
	return protocol | status << 8 | x->outcome << 16 | (u32)peer_class_of(&x->connection) << 24;
}

inline_always int is_of_edge(const struct tally *tally, const struct exchange *x, u32 kind)
{
	return tally->kind == kind && tally->process.start_time == x->process.start_time &&
	       tally->process.tgid == x->process.tgid && tally->process.exec_id == x->process.exec_id;
}

/* Adds to their edge what is kept. context: where this runs. */
inline_always void add_tally_here(struct turns *t, u32 context)
{
	struct tally *tally = &t->tally;
	u32 kind = tally->kind, count = tally->count;
	struct edge edge = {.protocol = kind, .status = kind >> 8, .outcome = kind >> 16, .context = context};
	struct edge_counts *counts;

	describe_edge(&edge, &t->exchange.connection, &tally->process);
	edge.peer = kind >> 24;
	tally->count = 0;
	counts = counts_of(&edge, &tally->process);
	if (!counts)
		return;
	counts->request_bytes += tally->request_bytes;
	counts->response_bytes += tally->response_bytes;
	counts->duration_sum += tally->sums[TALLIED_DURATION];
	counts->queue_sum += tally->sums[TALLIED_QUEUE];
	counts->processing_sum += tally->sums[TALLIED_PROCESSING];
	for (u32 i = 0; i < TALLIED; i++) {
		if (i >= count)
			break;
		count_slot(&counts->duration, tally->slots[TALLIED_DURATION][i]);
		count_slot(&counts->queue, tally->slots[TALLIED_QUEUE][i]);
		count_slot(&counts->processing, tally->slots[TALLIED_PROCESSING][i]);
	}
}

inline_always void settle_tally_here(struct turns *t, u32 context)
{
	if (aggregate && t->tally.count)
		add_tally_here(t, context);
}

/* A function of its own, and not static: the verifier then looks at it once. */
__attribute__((noinline)) int add_tally(struct turns *t, u32 context)
{
	if (t)
		add_tally_here(t, context);
	return 0;
}

inline_always void settle_tally(struct turns *t, u32 context)
{
	if (aggregate && t->tally.count)
		add_tally(t, context);
}

inline_always void tally_time(struct tally *tally, u32 which, u32 at, u64 time)
{
	tally->sums[which] += time;
	tally->slots[which][at] = slot_of(&slots, time);
}

/* The exchange of a connection that has ended. */
inline_always void tally_exchange(struct turns *t, u8 protocol, u8 status)
{
	const struct exchange *x = &t->exchange;
	struct tally *tally = &t->tally;
	u32 kind = kind_of(x, protocol, status), at;

	if (tally->count && !is_of_edge(tally, x, kind))
		add_tally(t, x->context);
	at = tally->count;
	if (!at) {
		tally->process = x->process;
		tally->kind = kind;
		tally->request_bytes = tally->response_bytes = 0;
		for (u32 which = 0; which < TALLIED_TIMES; which++)
			tally->sums[which] = 0;
	}
	at &= TALLIED - 1;
	tally->request_bytes += x->request_size;
	tally->response_bytes += x->response_size;
	tally_time(tally, TALLIED_DURATION, at, duration_of(x));
	tally->slots[TALLIED_QUEUE][at] = NO_SLOT;
	tally->slots[TALLIED_PROCESSING][at] = NO_SLOT;
	if (t->role == ROLE_SERVER && x->arrived)
		tally_time(tally, TALLIED_QUEUE, at, time_between(x->arrived, x->request_start));
	if (t->role == ROLE_SERVER && x->response_start)
		tally_time(tally, TALLIED_PROCESSING, at, time_between(x->request_end, x->response_start));
	tally->count = at + 1;
	if (at + 1 == TALLIED)
		add_tally(t, x->context);
}

#endif
