/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Connections that never came to be: a client's exchange without a byte, from connect() to the failure. */
#ifndef WIRESPAN_CONNECTING_H
#define WIRESPAN_CONNECTING_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "adoption.h"
#include "output.h"

#define ATTEMPTS 16384

struct attempt {
	u64 started;
	struct process_info process;
};

/* By socket. The oldest go when there are too many: their failure would not be reported. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, ATTEMPTS);
	__type(key, u64);
	__type(value, struct attempt);
} attempts SEC(".maps");

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

/* The attempt is over: the socket is in `state`. Returns who made it; 0: not known. */
inline_always u32 end_attempt(struct sock *sk, int state)
{
	u64 key = (u64)sk;
	struct attempt *attempt = bpf_map_lookup_elem(&attempts, &key);
	struct exchange *x;
	u32 tgid;

	if (!attempt)
		return 0;
	tgid = attempt->process.tgid;
	if (state == TCP_CLOSE) {
		x = reserve_short_exchange();
		if (x) {
			describe_connection(&x->connection, sk, ROLE_CLIENT);
			/* There is no sequence number yet that would tell attempts apart. */
			x->position = attempt->started;
			x->process = attempt->process;
			x->request_start = attempt->started;
			x->response_end = bpf_ktime_get_ns();
			x->outcome = outcome_of_attempt(sk);
			submit_short_exchange(x);
		}
	}
	bpf_map_delete_elem(&attempts, &key);
	return tgid;
}

#endif
