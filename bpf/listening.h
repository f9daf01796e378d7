/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Metrics: whose the listening sockets are. A connection is established in a softirq, before anybody has accepted it, and may
 * be reset without ever being: it is then that of who called listen(), or of who has read from connections of that listener
 * since, if that is another program (socket activation). Workers that were forked are not told from their parent.
 */
#ifndef WIRESPAN_LISTENING_H
#define WIRESPAN_LISTENING_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "connection.h"
#include "edges.h"
#include "tasks.h"

/* A port of one address, or of all: zeros. */
struct local_end {
	u64 address[2];
	u32 netns;
	u16 port;
	u16 reserved;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1); /* set before load */
	__type(key, struct local_end);
	__type(value, struct process_info);
} acceptors SEC(".maps");

inline_always void describe_local_end(struct local_end *end, struct sock *sk)
{
	end->netns = netns_of(sk);
	end->port = __builtin_bswap16(kernel_cast(inet_sock, sk)->inet_sport);
	end->reserved = 0;
	copy_local_address((u8 *)end->address, sk);
	if (end->address[1] == 0xffff0000) /* 0.0.0.0 */
		end->address[1] = 0;
}

/* Leaves in `end` the key under which it was found, else that of all addresses. */
inline_always const struct process_info *acceptor_at(struct local_end *end)
{
	const struct process_info *found = bpf_map_lookup_elem(&acceptors, end);
	struct local_end any = {.netns = end->netns, .port = end->port};

	if (!found) {
		*end = any;
		found = bpf_map_lookup_elem(&acceptors, &any);
	}
	return found;
}

/* sk: a listening socket, or one that was accepted. */
inline_always const struct process_info *acceptor_of(struct sock *sk)
{
	struct local_end end;

	describe_local_end(&end, sk);
	return acceptor_at(&end);
}

inline_always void note_listening(struct sock *sk, const struct process_info *process, u64 flags)
{
	struct local_end end;

	describe_local_end(&end, sk);
	bpf_map_update_elem(&acceptors, &end, process, flags);
}

/* Others may listen there, too (SO_REUSEPORT): they are found again at the next look. */
inline_always void forget_listening(struct sock *sk)
{
	struct local_end end;

	describe_local_end(&end, sk);
	bpf_map_delete_elem(&acceptors, &end);
}

/* The first exchange of an accepted connection has ended: whose it was is known now. Forked workers have the exec_id of their
 * parent.
 */
static __attribute__((noinline)) void follow_acceptor(const struct exchange *x)
{
	struct local_end end = {.netns = x->connection.netns, .port = x->connection.local_port};
	const struct process_info *acceptor;

	__builtin_memcpy(end.address, x->connection.local_address, sizeof(end.address));
	acceptor = acceptor_at(&end);
	if (!acceptor || acceptor->exec_id != x->process.exec_id)
		bpf_map_update_elem(&acceptors, &end, &x->process, BPF_ANY);
}

#endif
