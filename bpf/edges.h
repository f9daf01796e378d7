/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Metrics: every exchange that ends is counted in its edge, whether or not it goes up.
 *
 * An edge is one end's view: who asks or serves, at which port, how it went. Counts are per CPU and not atomic, for nothing
 * that counts can be preempted; what runs in a softirq, or by order of user space, has entries of its own.
 */
#ifndef WIRESPAN_EDGES_H
#define WIRESPAN_EDGES_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "counting.h"
#include "histogram.h"
#include "selection.h"
#include "siphash.h"
#include "status.h"

/* Set before load. Without aggregation nothing of this file is left of the programs. */
const volatile u8 aggregate = 0;
const volatile struct slot_table slots = {};

enum peer_class {
	PEER_EXTERNAL = 0,
	PEER_MACHINE = 1, /* on this machine */
	PEER_UNKNOWN = 2, /* of a listening socket, which has many */
};

struct edge {
	struct image process;
	u32 netns;
	u16 server_port;
	u8 role;
	u8 transport;
	u8 protocol;
	u8 status; /* enum status_class */
	u8 outcome;
	u8 peer; /* enum peer_class */
	u8 context; /* enum context */
	u8 reserved[3];
};

_Static_assert(sizeof(struct edge) == 32, "no padding: it is a key");

/* Times in ns. comm: on the CPU that met the edge first. */
struct edge_counts {
	u8 comm[16];
	u64 request_bytes;
	u64 response_bytes;
	u64 duration_sum;
	u64 queue_sum;
	u64 processing_sum;
	u64 dropped; /* exchanges that became no span for want of room: of a ring, or of the budget */
	struct histogram duration;
	struct histogram queue; /* servers: from the arrival of a request to its first byte being read */
	struct histogram processing; /* servers: from the last byte read to the first one written */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 1); /* set before load */
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct edge);
	__type(value, struct edge_counts);
} edges SEC(".maps");

enum edge_scratch_index {
	EDGE_NONE, /* zeros */
	EDGE_OVERFLOW, /* what found no room, by context */
};

/* New edges are copies of the first; per CPU, since nobody else may write into what they are copied from. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, EDGE_OVERFLOW + CONTEXTS);
	__type(key, u32);
	__type(value, struct edge_counts);
} edge_scratch SEC(".maps");

enum edge_scratch_index edge_scratch_index_names;
enum status_class status_class_names;
enum peer_class peer_class_names;
struct edge edge_layout;

inline_always u8 peer_class_of(const struct connection_info *c)
{
	const u64 *local = (const u64 *)c->local_address, *remote = (const u64 *)c->remote_address;

	if (c->flags & (FLAG_PEER_OBSERVED | FLAG_PEER_UNWATCHED) || address_is_loopback(remote) ||
	    (local[0] == remote[0] && local[1] == remote[1]))
		return PEER_MACHINE;
	return PEER_EXTERNAL;
}

inline_always void describe_edge(struct edge *edge, const struct connection_info *c, const struct process_info *process)
{
	edge->process.start_time = process->start_time;
	edge->process.tgid = process->tgid;
	edge->process.exec_id = process->exec_id;
	edge->netns = c->netns;
	edge->server_port = c->role == ROLE_CLIENT ? c->remote_port : c->local_port;
	edge->role = c->role;
	edge->transport = c->transport;
	edge->peer = peer_class_of(c);
}

inline_always struct edge_counts *new_edge_here(const struct edge *edge, const struct process_info *process)
{
	u32 none = EDGE_NONE, overflow = EDGE_OVERFLOW + edge->context;
	const struct edge_counts *zeros = bpf_map_lookup_elem(&edge_scratch, &none);
	struct edge_counts *counts;

	if (zeros)
		bpf_map_update_elem(&edges, edge, zeros, BPF_NOEXIST);
	counts = bpf_map_lookup_elem(&edges, edge);
	if (!counts)
		return bpf_map_lookup_elem(&edge_scratch, &overflow);
	__builtin_memcpy(counts->comm, process->comm, sizeof(counts->comm));
	return counts;
}

static __attribute__((noinline)) struct edge_counts *new_edge(const struct edge *edge,
							      const struct process_info *process)
{
	return new_edge_here(edge, process);
}

inline_always struct edge_counts *counts_of(const struct edge *edge, const struct process_info *process)
{
	struct edge_counts *counts = bpf_map_lookup_elem(&edges, edge);

	return likely(counts) ? counts : new_edge(edge, process);
}

/* What was counted has become no span for want of room. Looked up once more, so that nothing else pays for it. It calls nothing:
 * it is called where much of the stack is taken.
 */
static __attribute__((noinline)) int count_dropped_of(struct edge *edge, const struct connection_info *c,
						      const struct process_info *process)
{
	struct edge_counts *counts;

	describe_edge(edge, c, process);
	counts = bpf_map_lookup_elem(&edges, edge);
	if (!counts)
		counts = new_edge_here(edge, process);
	if (counts)
		counts->dropped++;
	return 0;
}

inline_always void count_dropped(const struct exchange *x)
{
	struct edge edge = {
		.protocol = x->protocol, .status = x->connection.status, .outcome = x->outcome, .context = x->context};

	if (aggregate && !(x->flags & FLAG_MESSAGE))
		count_dropped_of(&edge, &x->connection, &x->process);
}

/* As receiver/exchanges.py: what came out negative is 0. */
inline_always u64 time_between(u64 since, u64 until)
{
	return until > since ? until - since : 0;
}

inline_always u64 duration_of(const struct exchange *x)
{
	u64 since = x->connection.role == ROLE_SERVER && x->arrived ? x->arrived : x->request_start;

	return time_between(since, x->response_end);
}

inline_always void count_server(struct edge_counts *counts, const struct exchange *x)
{
	u64 time;

	if (x->arrived) {
		time = time_between(x->arrived, x->request_start);
		counts->queue_sum += time;
		add_to_histogram(&slots, &counts->queue, time);
	}
	if (x->response_start) {
		time = time_between(x->request_end, x->response_start);
		counts->processing_sum += time;
		add_to_histogram(&slots, &counts->processing, time);
	}
}

inline_always void count_edge(const struct exchange *x, u8 protocol, u8 status)
{
	struct edge edge = {.protocol = protocol, .status = status, .outcome = x->outcome, .context = x->context};
	struct edge_counts *counts;
	u64 duration;

	describe_edge(&edge, &x->connection, &x->process);
	counts = counts_of(&edge, &x->process);
	if (!counts)
		return;
	counts->request_bytes += x->request_size;
	counts->response_bytes += x->response_size;
	duration = duration_of(x);
	counts->duration_sum += duration;
	add_to_histogram(&slots, &counts->duration, duration);
	if (x->connection.role == ROLE_SERVER)
		count_server(counts, x);
}

#endif
