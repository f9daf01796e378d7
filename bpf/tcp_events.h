/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Metrics: what befalls connections, and which there are. The hooks run wherever a packet or a timer does, so `current` means
 * nothing in them: a connection is that of the process of its last exchange, or else of who connected or listened.
 */
#ifndef WIRESPAN_TCP_EVENTS_H
#define WIRESPAN_TCP_EVENTS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "connecting.h"
#include "listening.h"
#include "tcp_health.h"

/* ---- whose they are ------------------------------------------------------------------------------------------ */

inline_always void find_client(struct process_info *process, struct sock *sk)
{
	struct client_key own = own_client_key(sk);
	const struct client *client = bpf_map_lookup_elem(&clients, &own);
	const struct attempt *attempt = attempt_of(sk);

	if (attempt)
		*process = attempt->process;
	else if (client)
		describe_thread_group(process, client->tgid);
}

/* Stays zeros if it is not known. */
inline_always void find_process(struct process_info *process, struct sock *sk, const struct connection *c, u8 role)
{
	const struct process_info *acceptor;

	if (c && c->turns.mode > MODE_FORGOTTEN && c->turns.exchange.process.tgid) {
		*process = c->turns.exchange.process;
	} else if (role == ROLE_CLIENT) {
		find_client(process, sk);
	} else {
		acceptor = acceptor_of(sk);
		if (acceptor)
			*process = *acceptor;
	}
}

/* Returns 0 if the other end is the agent. */
inline_always int find_peer(struct connection_info *info)
{
	const struct client *client;

	if (info->role == ROLE_CLIENT)
		return 1;
	client = client_of(info);
	if (client && client->kind == CLIENT_AGENT)
		return 0;
	if (client)
		info->flags |= FLAG_PEER_OBSERVED;
	return 1;
}

/* Returns 0 if this end of a connection is not to be counted. process: whose it is. */
inline_always int describe_end(struct edge *edge, struct sock *sk, const struct connection *c, u8 role,
			       const struct process_info *process)
{
	struct connection_info info = {};

	if (is_subflow(sk) || (c && c->turns.mode == MODE_IGNORED))
		return 0;
	if (select_processes && image_is_left_out(process))
		return 0;
	describe_connection(&info, sk, role);
	if (!find_peer(&info))
		return 0;
	describe_edge(edge, &info, process);
	return 1;
}

static __attribute__((noinline)) struct tcp_counts *tcp_counts_of_socket(struct sock *sk)
{
	const struct connection *c = connection_of(sk);
	u8 role = c && c->turns.mode > MODE_FORGOTTEN ? c->turns.role : role_of(sk);
	struct process_info process = {};
	struct edge edge = {};

	if (!is_selected(sk, role) || is_unwatched(sk))
		return NULL;
	find_process(&process, sk, c, role);
	return describe_end(&edge, sk, c, role, &process) ? tcp_counts_of(&edge, &process) : NULL;
}

/* A connection is established at the end that accepts it. */
inline_always void count_accepted(struct sock *sk)
{
	struct tcp_counts *counts = tcp_counts_of_socket(sk);

	if (counts)
		__sync_fetch_and_add(&counts->connects, 1);
}

/* ---- packets ------------------------------------------------------------------------------------------------- */

/* Since Linux 6.17 it also tells of what could not be sent again. */
inline_always int is_retransmitted(const u64 *arguments)
{
	return !bpf_core_field_exists(struct trace_event_raw_tcp_retransmit_skb, err) || !(int)arguments[2];
}

/* Runs under the socket lock, also of a SYN. */
SEC("tp_btf/tcp_retransmit_skb")
int BPF_PROG(tcp_retransmit_skb, struct sock *sk, struct sk_buff *skb)
{
	struct tcp_counts *counts;
	u16 segments;

	if (!is_tcp(sk) || !is_retransmitted(ctx))
		return 0;
	counts = tcp_counts_of_socket(sk);
	if (!counts)
		return 0;
	segments = tcp_skb_cb(skb)->tcp_gso_segs;
	__sync_fetch_and_add(&counts->retransmits, segments ? segments : 1);
	return 0;
}

/* Small sockets stand for what is not a connection yet or any more, and have nothing else in common with others. */
inline_always int is_of_connection(struct sock *sk)
{
	u32 others = 1 << TCP_SYN_SENT | 1 << TCP_TIME_WAIT | 1 << TCP_LISTEN | 1 << TCP_NEW_SYN_RECV;

	return !(others >> sk->__sk_common.skc_state & 1) && is_tcp(sk);
}

/* sk: NULL if there is none at the port. */
SEC("tp_btf/tcp_send_reset")
int BPF_PROG(tcp_send_reset, struct sock *sk)
{
	struct tcp_counts *counts;

	if (!sk || !is_of_connection(sk))
		return 0;
	counts = tcp_counts_of_socket(sk);
	if (counts)
		__sync_fetch_and_add(&counts->resets_sent, 1);
	return 0;
}

/* Also when data comes to who has closed, which makes the kernel reset both ends. In TCP_SYN_SENT it is a refusal. */
SEC("tp_btf/tcp_receive_reset")
int BPF_PROG(tcp_receive_reset, struct sock *sk)
{
	u8 state = sk->__sk_common.skc_state;
	struct tcp_counts *counts;

	if (!is_of_connection(sk) ||
	    ((state == TCP_FIN_WAIT1 || state == TCP_FIN_WAIT2) && sk->sk_shutdown & RCV_SHUTDOWN))
		return 0;
	counts = tcp_counts_of_socket(sk);
	if (counts)
		__sync_fetch_and_add(&counts->resets_received, 1);
	return 0;
}

/* ---- listeners ----------------------------------------------------------------------------------------------- */

/* Of a listening socket: how many packets it had dropped when that was added to its edge. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, u32);
} listener_drops SEC(".maps");

/* What it dropped before it was met first is not counted. */
inline_always void begin_listening(struct sock *sk, const struct process_info *process, u64 flags)
{
	u32 *seen = bpf_sk_storage_get(&listener_drops, sk, 0, 0);

	note_listening(sk, process, flags);
	if (seen)
		return;
	seen = bpf_sk_storage_get(&listener_drops, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (seen)
		*seen = sk->sk_drops.counter;
}

static __attribute__((noinline)) int count_accept_drops(struct sock *sk)
{
	u32 *seen = bpf_sk_storage_get(&listener_drops, sk, 0, 0);
	const struct process_info *acceptor = acceptor_of(sk);
	struct process_info process = {};
	struct connection_info info = {};
	struct tcp_counts *counts;
	struct edge edge = {};
	u32 drops = sk->sk_drops.counter, added;

	if (!seen || *seen == drops)
		return 0;
	added = drops - *seen;
	*seen = drops;
	if (acceptor)
		process = *acceptor;
	if (!is_selected(sk, ROLE_SERVER) || is_unwatched(sk) || (select_processes && image_is_left_out(&process)))
		return 0;
	describe_connection(&info, sk, ROLE_SERVER);
	describe_edge(&edge, &info, &process);
	edge.peer = PEER_UNKNOWN;
	counts = tcp_counts_of(&edge, &process);
	if (counts)
		__sync_fetch_and_add(&counts->accept_drops, added);
	return 0;
}

/* ---- which there are ----------------------------------------------------------------------------------------- */

/* A connection that a process has a file of. */
struct open_connection {
	u64 cookie;
	struct edge edge;
	u8 comm[16];
};

struct open_connection open_connection_layout;

inline_always void list_connection(struct seq_file *seq, struct sock *sk, const struct process_info *process)
{
	const struct connection *c = connection_of(sk);
	struct open_connection found = {};
	u8 role = role_of(sk);

	if (!is_selected(sk, role) || is_unwatched(sk) || !describe_end(&found.edge, sk, c, role, process))
		return;
	found.cookie = bpf_get_socket_cookie(sk);
	__builtin_memcpy(found.comm, process->comm, sizeof(found.comm));
	bpf_seq_write(seq, &found, sizeof(found));
}

/* Read by user space at each look. A socket is met once for each process that has it. */
SEC("iter/task_file")
int list_connections(struct bpf_iter__task_file *ctx)
{
	struct process_info process = {};
	struct task_struct *task = ctx->task;
	struct sock *sk = tcp_socket_of(ctx->file);

	if (!task || !sk || (u32)task->tgid == agent_tgid)
		return 0;
	describe_task(&process, task);
	if (sk->__sk_common.skc_state == TCP_LISTEN) {
		begin_listening(sk, &process, BPF_NOEXIST);
		count_accept_drops(sk);
	} else if (is_connected(sk)) {
		list_connection(ctx->meta->seq, sk, &process);
	}
	return 0;
}

#endif
