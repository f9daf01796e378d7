/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Attempts to connect that are under way, and what goes with the SYN (TCP Fast Open, RFC 7413): bytes that move before there is
 * a connection.
 */
#ifndef WIRESPAN_ATTEMPTS_H
#define WIRESPAN_ATTEMPTS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "positions.h"

#define ATTEMPTS 16384

struct attempt {
	u64 started;
	struct process_info process;
};

/* By socket. The oldest go when there are too many: COUNT_ATTEMPTS_UNKNOWN. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, ATTEMPTS);
	__type(key, u64);
	__type(value, struct attempt);
} attempts SEC(".maps");

inline_always struct attempt *attempt_of(const struct sock *sk)
{
	u64 key = (u64)sk;

	return bpf_map_lookup_elem(&attempts, &key);
}

/* A send that did not wait returned before the connection is there. */
inline_always int is_opening(const struct sock *sk, u64 sent)
{
	return sent && sk->__sk_common.skc_state == TCP_SYN_SENT;
}

/* Bytes in the SYN of a client that is being connected; there is no SYN where TCP_REPAIR connects. */
inline_always u64 opening_payload(const struct sock *sk)
{
	s64 sent = sent_payload(sk, kernel_cast(tcp_sock, sk), ROLE_CLIENT);

	return sent > 0 ? sent : 0;
}

#endif
