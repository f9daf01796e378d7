/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Metrics: how well the connections of an edge do. The edges are those of edges.h without protocol and status, and with an
 * outcome only where a connection never came to be.
 *
 * What is counted here is rare, and happens in softirqs as well as in system calls: all of it is added atomically, so that no
 * CPU needs counts of its own, which would take 2.4 KB each.
 */
#ifndef WIRESPAN_TCP_HEALTH_H
#define WIRESPAN_TCP_HEALTH_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "edges.h"
#include "kernel.h"

/* Times in ns. comm: of who met the edge first. */
struct tcp_counts {
	u8 comm[16];
	u64 connects;
	u64 failures;
	u64 retransmits; /* segments */
	u64 resets_sent;
	u64 resets_received;
	u64 accept_drops; /* packets */
	u64 window_waits;
	u64 connect_sum;
	u64 srtt_sum;
	u64 min_rtt_sum;
	struct histogram connect; /* clients: from connect() to the connection */
	struct histogram srtt;
	struct histogram min_rtt;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1); /* set before load */
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct edge);
	__type(value, struct tcp_counts);
} tcp_edges SEC(".maps");

enum tcp_scratch_index {
	TCP_NONE, /* zeros */
	TCP_OVERFLOW, /* what found no room */
	TCP_SCRATCHES,
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, TCP_SCRATCHES);
	__type(key, u32);
	__type(value, struct tcp_counts);
} tcp_scratch SEC(".maps");

enum tcp_scratch_index tcp_scratch_index_names;

static __attribute__((noinline)) struct tcp_counts *new_tcp_edge(const struct edge *edge,
								 const struct process_info *process)
{
	u32 none = TCP_NONE, overflow = TCP_OVERFLOW;
	const struct tcp_counts *zeros = bpf_map_lookup_elem(&tcp_scratch, &none);
	struct tcp_counts *counts;

	if (zeros)
		bpf_map_update_elem(&tcp_edges, edge, zeros, BPF_NOEXIST);
	counts = bpf_map_lookup_elem(&tcp_edges, edge);
	if (!counts)
		return bpf_map_lookup_elem(&tcp_scratch, &overflow);
	__builtin_memcpy(counts->comm, process->comm, sizeof(counts->comm));
	return counts;
}

inline_always struct tcp_counts *tcp_counts_of(const struct edge *edge, const struct process_info *process)
{
	struct tcp_counts *counts = bpf_map_lookup_elem(&tcp_edges, edge);

	return likely(counts) ? counts : new_tcp_edge(edge, process);
}

inline_always void add_to_tcp_histogram(struct histogram *h, u64 *sum, u64 duration)
{
	u32 slot = slot_of(&slots, duration);

	__sync_fetch_and_add(sum, duration);
	opaque(slot);
	if (slot < HISTOGRAM_SLOTS)
		__sync_fetch_and_add(&h->slots[slot], 1);
}

/* duration: ns since connect(); outcome: why there is no connection, 0 if there is one. */
static __attribute__((noinline)) void count_connect(const struct connection_info *c, const struct process_info *process,
						    u8 outcome, u64 duration)
{
	struct edge edge = {.outcome = outcome};
	struct tcp_counts *counts;

	describe_edge(&edge, c, process);
	counts = tcp_counts_of(&edge, process);
	if (!counts)
		return;
	if (outcome) {
		__sync_fetch_and_add(&counts->failures, 1);
		return;
	}
	__sync_fetch_and_add(&counts->connects, 1);
	add_to_tcp_histogram(&counts->connect, &counts->connect_sum, duration);
}

/* ---- windows ------------------------------------------------------------------------------------------------- */

static __attribute__((noinline)) void count_window_wait(const struct turns *t, u64 duration)
{
	struct edge edge = {};
	struct tcp_counts *counts;

	describe_edge(&edge, &t->exchange.connection, &t->exchange.process);
	counts = tcp_counts_of(&edge, &t->exchange.process);
	if (counts)
		__sync_fetch_and_add(&counts->window_waits, duration);
}

/* Looks whether sending waits for the other end to make room, and counts for how long it has been seen to. */
inline_always void follow_window(struct turns *t, const struct tcp_sock *tp)
{
	int waits = BPF_CORE_READ_BITFIELD(tp, chrono_type) == TCP_CHRONO_RWND_LIMITED;
	u64 now, since = t->window_wait;

	if (likely(!waits && !since))
		return;
	now = bpf_ktime_get_ns();
	t->window_wait = waits ? now : 0;
	if (since && now > since && !(select_processes && is_left_out(t, &t->exchange.process)))
		count_window_wait(t, now - since);
}

/* ---- round trips: of the connection of one exchange in 16 ---------------------------------------------------- */

/* By the time at which it ended. Some are multiples of 1,000 ns, so not the last digits, but all of them together decide. */
inline_always int is_rtt_sampled(u64 time)
{
	return !(time * 0x9e3779b97f4a7c15ull >> 60);
}

static __attribute__((noinline)) void sample_rtt(const struct turns *t, const struct process_info *process)
{
	const struct tcp_sock *tp = kernel_cast(tcp_sock, t->socket);
	u64 srtt = tp->srtt_us * 1000ull / 8, min_rtt = tp->rtt_min.s[0].v * 1000ull;
	struct edge edge = {};
	struct tcp_counts *counts;

	if (!srtt)
		return;
	describe_edge(&edge, &t->exchange.connection, process);
	counts = tcp_counts_of(&edge, process);
	if (!counts)
		return;
	add_to_tcp_histogram(&counts->srtt, &counts->srtt_sum, srtt);
	add_to_tcp_histogram(&counts->min_rtt, &counts->min_rtt_sum, min_rtt);
}

#endif
