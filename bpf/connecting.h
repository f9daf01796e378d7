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
static __attribute__((noinline)) void begin_attempt(struct sock *sk)
{
	struct attempt attempt = {};
	u64 key = (u64)sk;

	if (!is_selected(sk, ROLE_CLIENT) || is_unwatched(sk))
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

/* Of an exchange all but its heads, which an attempt has not: the stack has no room for them. */
struct headless_exchange {
	u8 facts[__builtin_offsetof(struct exchange, response_head)];
} __attribute__((aligned(8)));

inline_always void describe_attempt(struct exchange *x, struct sock *sk, const struct attempt *attempt)
{
	describe_connection(&x->connection, sk, ROLE_CLIENT);
	/* There is no sequence number that would tell attempts apart. */
	x->connection.sequence = attempt->started;
	x->position = attempt->started;
	x->process = attempt->process;
	x->request_start = attempt->started;
	x->response_end = bpf_ktime_get_ns();
	x->outcome = outcome_of_attempt(sk);
	x->context = CONTEXT_SOFTIRQ;
}

inline_always void output_headless(const struct headless_exchange *exchange)
{
	u32 before = select_processes ? sizeof(struct process_info) : 0;
	void *row = select_processes
			    ? bpf_ringbuf_reserve(&short_exchanges, sizeof(struct process_info) + EXCHANGE_SHORT, 0)
			    : bpf_ringbuf_reserve(&short_exchanges, EXCHANGE_SHORT, 0);

	if (!row) {
		count(COUNT_DROPPED_RING_FULL);
		count_dropped((const struct exchange *)exchange);
		return;
	}
	__builtin_memset(row, 0, EXCHANGE_SHORT);
	if (select_processes)
		__builtin_memset(row + EXCHANGE_SHORT, 0, sizeof(struct process_info));
	__builtin_memcpy(row + before, exchange, sizeof(*exchange));
	bpf_ringbuf_submit(row, BPF_RB_NO_WAKEUP);
}

/* As output_exchange() does it for one that has been collected. A function of its own, so that the program that calls it
 * does not have its stack.
 */
static __attribute__((noinline)) int output_attempt(struct sock *sk, const struct attempt *attempt)
{
	int left_out = select_processes && image_is_left_out(&attempt->process);
	struct headless_exchange exchange = {};
	struct exchange *x = (struct exchange *)&exchange;

	describe_attempt(x, sk, attempt);
	if (aggregate && !left_out)
		count_connect(&x->connection, &attempt->process, x->outcome, 0);
	if (is_kept(x, NULL, left_out)) {
		count_cost(sk, &x->process, COST_RECORD);
		output_headless(&exchange);
	}
	return 0;
}

static __attribute__((noinline)) void count_connected(struct sock *sk, const struct attempt *attempt)
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
		if (is_selected(sk, ROLE_CLIENT) && !is_ignored(sk) && !is_unwatched(sk))
			count(COUNT_ATTEMPTS_UNKNOWN);
		return 0;
	}
	tgid = attempt->process.tgid;
	*started = attempt->started;
	if (is_unwatched(sk))
		;
	else if (state == TCP_CLOSE)
		output_attempt(sk, attempt);
	else if (aggregate && state == TCP_ESTABLISHED)
		count_connected(sk, attempt);
	bpf_map_delete_elem(&attempts, &key);
	return tgid;
}

#endif
