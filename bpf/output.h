/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The rings to user space, and the records that go into them. All under the connection's lock. */
#ifndef WIRESPAN_OUTPUT_H
#define WIRESPAN_OUTPUT_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "cgroups.h"
#include "counting.h"
#include "edges.h"
#include "exchange.h"
#include "listening.h"
#include "sampling.h"
#include "selection.h"
#include "tally.h"
#include "tcp_health.h"
#include "user_payload.h"

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 23);
} short_exchanges SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 22);
} long_exchanges SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 23);
} segments SEC(".maps");

/* Room for one segment: its header, and behind it the payload. Programs in tracepoints cannot be preempted, and a
 * program is not entered twice on one CPU, so an entry per CPU and direction is never shared.
 */
struct scratch {
	struct segment segment;
	u8 payload[2 * SEGMENT_PAYLOAD];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2); /* 2 * cpus, set before load */
	__type(key, u32);
	__type(value, struct scratch);
} scratch SEC(".maps");

_Static_assert(__builtin_offsetof(struct turns, requester) + sizeof(struct process_info) ==
		       __builtin_offsetof(struct turns, exchange),
	       "they go up as one");

/* from: `before` bytes that go up with the exchange, and then it. */
inline_always void output_row(const struct exchange *x, void *from, u32 before)
{
	long failed;

	if (x->request_captured <= REQUEST_HEAD_SHORT)
		failed = bpf_ringbuf_output(&short_exchanges, from, before + EXCHANGE_SHORT, BPF_RB_NO_WAKEUP);
	else
		failed = bpf_ringbuf_output(&long_exchanges, from, before + sizeof(*x), BPF_RB_NO_WAKEUP);
	if (unlikely(failed)) {
		count(COUNT_DROPPED_RING_FULL);
		count_dropped(x);
	}
}

/* Whether an exchange that has ended goes up. t: of its connection; NULL: it is counted at once. left_out: its process is. */
inline_always int is_kept(struct exchange *x, struct turns *t, int left_out)
{
	u8 protocol = PROTOCOL_UNKNOWN, status = STATUS_UNKNOWN;

	count_in(x->context, COUNT_OBSERVED);
	if (unlikely(left_out)) {
		count(COUNT_EXCLUDED);
		return 0;
	}
	if (wants_status()) {
		protocol = x->protocol;
		status = x->connection.status;
	}
	if (!aggregate || x->flags & FLAG_MESSAGE)
		;
	else if (t)
		tally_exchange(t, protocol, status);
	else
		count_edge(x, protocol, status);
	return !sampling || is_sampled(x, status);
}

inline_always void output_exchange(struct turns *t, int quietly)
{
	struct exchange *x = &t->exchange;
	void *from = x;
	u32 before = 0;
	int left_out = select_processes && is_left_out(t, &x->process);

	if (aggregate && !x->position && t->role == ROLE_SERVER)
		follow_acceptor(x);
	if (aggregate && !left_out && is_rtt_sampled(x->response_end))
		sample_rtt(t, &x->process);
	if (!is_kept(x, quietly ? NULL : t, left_out))
		return;
	count_cost(kernel_cast(sock, t->socket), &x->process, COST_RECORD);
	if (unlikely(select_processes)) {
		if (!x->response_start || !t->requester.tgid)
			find_requester(t);
		from = &t->requester;
		before = sizeof(t->requester);
	}
	output_row(x, from, before);
}

inline_always void output_segment(const struct segment *segment, u32 captured)
{
	count(COUNT_SEGMENTS);
	if (captured > SEGMENT_PAYLOAD)
		return;
	if (bpf_ringbuf_output(&segments, (void *)segment, sizeof(*segment) + captured, BPF_RB_NO_WAKEUP))
		count(COUNT_SEGMENTS_RING_FULL);
}

inline_always struct scratch *scratch_of(u8 direction)
{
	u32 index = bpf_get_smp_processor_id() * 2 + direction;

	return bpf_map_lookup_elem(&scratch, &index);
}

/* A function of its own, and not static: the verifier then looks at it once. */
__attribute__((noinline)) int output_request_segment(struct turns *t)
{
	struct exchange *x;
	struct segment *segment;
	struct scratch *s;

	if (!t)
		return 0;
	x = &t->exchange;
	if (select_processes && is_left_out(t, &x->process)) {
		count(COUNT_SEGMENTS_EXCLUDED);
		return 0;
	}
	s = scratch_of(request_direction(t));
	if (!s)
		return 0;
	segment = &s->segment;
	if (select_processes) {
		find_requester(t);
		segment->requester = t->requester;
	}
	segment->connection = x->connection;
	segment->process = x->process;
	segment->arrivals[0].time = x->arrived;
	segment->arrivals[0].begin = x->position;
	segment->arrivals[0].end = x->position + x->request_size;
	for (u32 i = 1; i < ARRIVALS; i++)
		segment->arrivals[i].time = 0;
	segment->position = x->position;
	segment->start = x->request_start;
	segment->end = x->request_end;
	segment->size = x->request_size;
	segment->captured = x->request_captured;
	segment->direction = request_direction(t);
	segment->protocol = t->protocol;
	__builtin_memcpy(s->payload, x->request_head, REQUEST_HEAD);
	count_cost(kernel_cast(sock, t->socket), &x->process, COST_SEGMENT);
	output_segment(segment, x->request_captured <= REQUEST_HEAD ? x->request_captured : 0);
	return 0;
}

inline_always void output_pending(struct turns *t)
{
	output_request_segment(t);
}

/* Whether the I/O of this process goes up; says who sent a request. */
inline_always int selects_segment(struct turns *t, struct segment *segment, u8 direction)
{
	if (direction == DIRECTION_SENT && t->role == ROLE_CLIENT)
		note_requester(t, &segment->process);
	if (is_left_out(t, &segment->process)) {
		count(COUNT_SEGMENTS_EXCLUDED);
		return 0;
	}
	find_requester(t);
	segment->requester = t->requester;
	return 1;
}

/* A function of its own, and not static: the verifier then looks at it once. */
__attribute__((noinline)) int sample_rtt_of_segment(struct turns *t, struct process_info *process)
{
	if (t && process)
		sample_rtt(t, process);
	return 0;
}

/* An I/O in segment mode. */
inline_always void output_io(struct turns *t, const struct io *io)
{
	struct scratch *s = scratch_of(io->direction);
	struct segment *segment;

	if (!s)
		return;
	segment = &s->segment;
	segment->connection = t->exchange.connection;
	describe_process(&segment->process);
	if (select_processes && !selects_segment(t, segment, io->direction))
		return;
	if (aggregate && io->direction != request_direction(t) && is_rtt_sampled(io->end))
		sample_rtt_of_segment(t, &segment->process);
	segment->position = io->position;
	segment->start = io->start;
	segment->end = io->end;
	segment->size = io->size;
	segment->captured = 0;
	if (reads_payload() && !io->payload.none && !io->payload.discarded)
		segment->captured =
			copy_user_segment(file_of(io->payload.sk), (struct segment_space *)s->payload, io->size);
	segment->direction = io->direction;
	segment->protocol = t->protocol;
	if (io->direction == DIRECTION_RECEIVED)
		take_arrivals(&t->arrivals, io->position, segment->arrivals);
	if (segment->captured < io->size)
		count_many(COUNT_SEGMENT_BYTES_SKIPPED, io->size - segment->captured);
	count_cost(io->payload.sk, &segment->process, COST_SEGMENT);
	output_segment(segment, segment->captured);
}

/* A segment of no bytes: no more responses will come. Returns whether there was room. May run in a softirq, so it stays off
 * `scratch`.
 */
inline_always int output_end(const struct turns *t, u64 now, u8 outcome)
{
	struct segment *segment = bpf_ringbuf_reserve(&segments, sizeof(*segment), 0);

	count(COUNT_SEGMENTS);
	if (!segment) {
		count(COUNT_SEGMENTS_RING_FULL);
		return 0;
	}
	__builtin_memset(segment, 0, sizeof(*segment));
	segment->connection = t->exchange.connection;
	segment->start = now;
	segment->end = now;
	segment->protocol = t->protocol;
	segment->outcome = outcome;
	bpf_ringbuf_submit(segment, BPF_RB_NO_WAKEUP);
	return 1;
}

#endif
