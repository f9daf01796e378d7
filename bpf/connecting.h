/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Connections that never came to be: a client's exchange without a byte, from connect() to the failure. */
#ifndef WIRESPAN_CONNECTING_H
#define WIRESPAN_CONNECTING_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "adoption.h"
#include "attempts.h"
#include "output.h"
#include "tcp_health.h"

/* Runs in who called connect(). */
inline_always void begin_attempt(struct sock *sk)
{
	struct attempt attempt = {};
	u64 key = (u64)sk;

	if (!is_selected(sk, ROLE_CLIENT))
		return;
	attempt.started = bpf_ktime_get_ns();
	describe_process(&attempt.process);
	bpf_map_update_elem(&attempts, &key, &attempt, BPF_ANY);
}

inline_always u8 outcome_of_attempt(const struct sock *sk)
{
	switch (sk->sk_err) {
	case ECONNREFUSED:
		return OUTCOME_CONNECTION_REFUSED;
	case ECONNRESET:
		return OUTCOME_CONNECTION_RESET;
	case ETIMEDOUT:
		return OUTCOME_TIMEOUT;
	case EHOSTUNREACH:
		return OUTCOME_HOST_UNREACHABLE;
	case ENETUNREACH:
		return OUTCOME_NETWORK_UNREACHABLE;
	default:
		/* inet_hash_connect() found no port, which only connect() is told. */
		return kernel_cast(inet_sock, sk)->inet_sport ? OUTCOME_CONNECTION_ABORTED
							      : OUTCOME_ADDRESS_NOT_AVAILABLE;
	}
}

inline_always void describe_attempt(struct exchange *x, const struct connection_info *c, const struct attempt *attempt,
				    u8 outcome, u64 now)
{
	x->connection = *c;
	/* There is no sequence number that would tell attempts apart. */
	x->connection.sequence = attempt->started;
	x->position = attempt->started;
	x->process = attempt->process;
	x->request_start = attempt->started;
	x->response_end = now;
	x->outcome = outcome;
	x->context = CONTEXT_SOFTIRQ;
}

/* As output_exchange() does it for one that has been collected. */
inline_always void output_attempt(struct sock *sk, const struct attempt *attempt)
{
	u32 before = select_processes ? sizeof(struct process_info) : 0;
	struct connection_info connection = {};
	u64 now = bpf_ktime_get_ns();
	u8 outcome = outcome_of_attempt(sk);
	struct exchange *x;
	void *row;

	count(COUNT_OBSERVED);
	if (select_processes && image_is_left_out(&attempt->process)) {
		count(COUNT_EXCLUDED);
		return;
	}
	describe_connection(&connection, sk, ROLE_CLIENT);
	if (aggregate) {
		count_failed_connect(&connection, &attempt->process, outcome, now - attempt->started);
		count_connect(&connection, &attempt->process, outcome, 0);
	}
	row = select_processes ? bpf_ringbuf_reserve(&short_exchanges, sizeof(struct process_info) + EXCHANGE_SHORT, 0)
			       : bpf_ringbuf_reserve(&short_exchanges, EXCHANGE_SHORT, 0);
	if (!row) {
		struct edge edge = {.outcome = outcome, .context = CONTEXT_SOFTIRQ};

		count(COUNT_DROPPED_RING_FULL);
		if (aggregate)
			count_dropped_of(&edge, &connection, &attempt->process);
		return;
	}
	__builtin_memset(row, 0, EXCHANGE_SHORT);
	if (select_processes)
		__builtin_memset(row + EXCHANGE_SHORT, 0, sizeof(struct process_info));
	x = row + before;
	describe_attempt(x, &connection, attempt, outcome, now);
	if (sampling && !is_sampled(x, STATUS_UNKNOWN))
		bpf_ringbuf_discard(row, BPF_RB_NO_WAKEUP);
	else
		bpf_ringbuf_submit(row, BPF_RB_NO_WAKEUP);
}

inline_always void count_connected(struct sock *sk, const struct attempt *attempt)
{
	struct connection_info connection = {};

	if (select_processes && image_is_left_out(&attempt->process))
		return;
	describe_connection(&connection, sk, ROLE_CLIENT);
	count_connect(&connection, &attempt->process, 0, bpf_ktime_get_ns() - attempt->started);
}

/* The attempt is over: the socket is in `state`. Returns who made it; 0: not known. */
inline_always u32 end_attempt(struct sock *sk, int state, u64 *started)
{
	struct attempt *attempt = attempt_of(sk);
	u64 key = (u64)sk;
	u32 tgid;

	if (!attempt) {
		if (is_selected(sk, ROLE_CLIENT) && !is_ignored(sk))
			count(COUNT_ATTEMPTS_UNKNOWN);
		return 0;
	}
	tgid = attempt->process.tgid;
	*started = attempt->started;
	if (state == TCP_CLOSE)
		output_attempt(sk, attempt);
	else if (aggregate && state == TCP_ESTABLISHED)
		count_connected(sk, attempt);
	bpf_map_delete_elem(&attempts, &key);
	return tgid;
}

#endif
