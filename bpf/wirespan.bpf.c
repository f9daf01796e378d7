// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* The kernel side of wirespan: thin programs around the state machine of exchange.h.
 *
 *   tp_btf/sock_send_length, sock_recv_length   every byte that a process moves through a socket   (kernel >= 6.3)
 *   tp_btf/tcp_sendmsg_locked                   when a send begins: the hook above runs when it returned
 *   tp_btf/sk_data_ready                        bytes arrived that nobody has read yet
 *   tp_btf/inet_sock_set_state                  connections: attempts that fail, and who connected
 *   tp_btf/tcp_destroy_sock                     the end of a connection
 *   tp_btf/tcp_retransmit_skb, tcp_send_reset,
 *   tcp_receive_reset                           metrics: how well connections do
 *   iter/bpf_map                                who else watches this machine
 *   iter/task_file                              connections that are older than the agent
 *   iter/bpf_sk_storage_map                     finishes what has been quiet for `settle`
 *
 * The hooks run in the way of every packet, so calls are rare here: with the mitigations of today's CPUs a helper costs
 * 20 to 45 ns, and so does reading the clock. What the kernel has noted down itself is taken from there.
 */
#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "kernel.h"

/* Where the bytes of an I/O are. */
struct payload {
	struct sock *sk;
	u8 none; /* not at hand */
	u8 discarded; /* MSG_TRUNC leaves the application's buffer alone */
};

#include "adoption.h"
#include "connecting.h"
#include "connection.h"
#include "direct_map.h"
#include "existing.h"
#include "lock.h"
#include "others.h"
#include "output.h"
#include "own_cost.h"
#include "packet_payload.h"
#include "positions.h"
#include "selection.h"
#include "tcp_events.h"
#include "unseen.h"
#include "user_payload.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Which sources this is compiled from; wirespan/native/sources.py. */
#ifndef SOURCES
#define SOURCES 0
#endif
const volatile u64 sources = SOURCES;

/* Set before load. */
const volatile u64 settle = 1000000000;
const volatile u64 request_timeout = 30000000000;
const volatile u8 message_spans = 0;

/* Set when nothing is attached any more: every response is complete then. */
u8 stopping = 0;

enum protocol protocol_names;
enum outcome outcome_names;
enum role role_names;
enum direction direction_names;
enum exchange_flag exchange_flag_names;
struct segment segment_layout;
struct pipe_text pipe_text_layout;

/* ---- what the state machine asks for ----------------------------------------------------------------------- */

inline_always int wants_messages(void)
{
	return message_spans;
}

inline_always u64 silence(void)
{
	return settle;
}

inline_always int wants_status(void)
{
	return aggregate || by_policy;
}

inline_always void describe_process(struct process_info *process)
{
	describe_task(process, bpf_get_current_task_btf());
}

/* What is known of `captured` is forgotten at its ends: the verifier would follow each possible value on its own. */
inline_always void copy_more(const struct io *io, u8 *head, u16 *captured, u32 limit)
{
	u32 at = *captured, known_worth;

	if (!reads_payload() || io->payload.none || io->payload.discarded)
		return;
	known_worth = at && is_worth_more(head[0], limit);
	opaque(at);
	if (at >= limit)
		return;
	*captured = at + copy_user_head(file_of(io->payload.sk), (struct head_space *)(head + at), io->size, limit - at,
					known_worth);
	barrier();
}

inline_always void copy_head(struct turns *t, struct io *io, u8 *head, u16 *captured, u32 limit)
{
	*captured = 0;
	if (!reads_payload() || io->payload.none)
		return;
	if (unlikely(t->by_hooks)) { /* what the queues hold is not what the application sees */
		;
	} else if (io->direction == DIRECTION_SENT) {
		u32 sequence = t->sequence[DIRECTION_SENT] + (u32)io->position;
		u64 left = 0;

		*captured = copy_sent_head(io->payload.sk, sequence, io->size, head, limit, &left);
		if (*captured && left && io->by_packet)
			io->start = io->end = left;
	} else {
		*captured = copy_arrived_head(&t->arrivals, io->position, io->size, head, limit);
	}
	barrier();
	if (unlikely(!*captured))
		copy_more(io, head, captured, limit);
}

inline_always u64 first_transmission(const struct io *io)
{
	if (!bpf_core_type_exists(btf_trace_tcp_sendmsg_locked))
		return 0;
	return kernel_cast(tcp_sock, io->payload.sk)->first_tx_mstamp * 1000;
}

#include "tcp.h"
#include "udp.h" /* which asks for the process, too */

/* ---- I/O ------------------------------------------------------------------------------------------------- */

SEC("tp_btf/sock_send_length")
int BPF_PROG(sock_send_length, struct sock *sk, int ret, int flags)
{
	u64 since;

	if (unlikely(!is_tcp(sk)))
		return is_udp(sk) ? datagram_sent(sk, ret) : 0;
	since = begin_measuring(HOOK_SOCK_SEND_LENGTH, kernel_cast(tcp_sock, sk)->write_seq);
	stream_sent(sk, ret);
	end_measuring(HOOK_SOCK_SEND_LENGTH, since);
	return 0;
}

SEC("tp_btf/sock_recv_length")
int BPF_PROG(sock_recv_length, struct sock *sk, int ret, int flags)
{
	u64 since;

	if (unlikely(!is_tcp(sk)))
		return is_udp(sk) && !(flags & (MSG_PEEK | MSG_ERRQUEUE))
			       ? datagram_received(sk, ret, flags & MSG_TRUNC)
			       : 0;
	if (ret == -EAGAIN || flags & (MSG_PEEK | MSG_ERRQUEUE | MSG_OOB))
		return 0;
	since = begin_measuring(HOOK_SOCK_RECV_LENGTH, kernel_cast(tcp_sock, sk)->copied_seq);
	stream_received(sk, ret, flags);
	end_measuring(HOOK_SOCK_RECV_LENGTH, since);
	return 0;
}

/* Runs once a chunk of a send, under the socket lock. */
SEC("tp_btf/tcp_sendmsg_locked")
int BPF_PROG(tcp_sendmsg_locked, struct sock *sk, struct msghdr *msg, struct sk_buff *skb, int size_goal)
{
	u64 since = begin_measuring(HOOK_TCP_SENDMSG_LOCKED, kernel_cast(tcp_sock, sk)->write_seq);

	send_begins(sk, msg, size_goal);
	end_measuring(HOOK_TCP_SENDMSG_LOCKED, since);
	return 0;
}

/* Runs in the sender's context or a softirq: `current` means nothing here. */
SEC("tp_btf/sk_data_ready")
int BPF_PROG(sk_data_ready, struct sock *sk)
{
	u64 since;

	if (unlikely(!is_tcp(sk)))
		return is_udp(sk) ? note_datagram(sk) : 0;
	since = begin_measuring(HOOK_SK_DATA_READY, kernel_cast(tcp_sock, sk)->rcv_nxt);
	stream_arrived(sk);
	end_measuring(HOOK_SK_DATA_READY, since);
	return 0;
}

/* ---- connections ----------------------------------------------------------------------------------------- */

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(inet_sock_set_state, struct sock *sk, int oldstate, int newstate)
{
	struct process_info process = {};
	struct connection *c;
	u64 started = 0;
	u32 tgid = 0;

	if (!is_tcp(sk))
		return 0;
	if (newstate == TCP_LISTEN)
		note_listener(sk);
	if (aggregate && newstate == TCP_LISTEN) {
		describe_process(&process);
		begin_listening(sk, &process, BPF_ANY);
	} else if (aggregate && oldstate == TCP_LISTEN && newstate == TCP_CLOSE) {
		count_accept_drops(sk);
		forget_listening(sk);
	}
	/* connect() runs in its caller: the only moment at which the agent's own sockets can be told. */
	if (newstate == TCP_SYN_SENT) {
		c = connection_of(sk);
		if (c && c->turns.mode > MODE_FORGOTTEN) { /* connected a second time */
			on_socket_end(c, sk, OUTCOME_CONNECTION_CLOSED, CONTEXT_SOFTIRQ);
			c->turns.mode = MODE_NEW;
		}
		if (bpf_get_current_pid_tgid() >> 32 == agent_tgid)
			ignore(sk);
		else
			begin_attempt(sk);
	} else if (oldstate == TCP_SYN_SENT) {
		tgid = end_attempt(sk, newstate, &started);
		c = connection_of(sk);
		if (newstate == TCP_CLOSE && c && c->turns.mode > MODE_FORGOTTEN)
			c->turns.mode = MODE_NEW; /* what was sent with the SYN is a part of the failure */
	}
	if (newstate == TCP_ESTABLISHED && (oldstate == TCP_SYN_SENT || oldstate == TCP_SYN_RECV))
		establish(sk, oldstate == TCP_SYN_SENT ? ROLE_CLIENT : ROLE_SERVER, tgid, started);
	if (aggregate && newstate == TCP_ESTABLISHED && oldstate == TCP_SYN_RECV)
		count_accepted(sk);
	return 0;
}

SEC("tp_btf/tcp_destroy_sock")
int BPF_PROG(tcp_destroy_sock, struct sock *sk)
{
	struct connection *c = connection_of(sk);

	if (!sk->sk_max_ack_backlog) {
		struct client_key key = own_client_key(sk);

		bpf_map_delete_elem(&clients, &key);
	}
	if (c && c->turns.mode > MODE_FORGOTTEN && is_unwatched(sk))
		leave(c, sk, CONTEXT_SOFTIRQ);
	else if (c && c->turns.mode > MODE_FORGOTTEN)
		on_socket_end(c, sk, sk->sk_err == ECONNRESET ? OUTCOME_CONNECTION_RESET : OUTCOME_CONNECTION_CLOSED,
			      CONTEXT_SOFTIRQ);
	return 0;
}

/* Read by user space every half `settle`. */
SEC("iter/bpf_sk_storage_map")
int finish_quiet(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct sock *sk = ctx->sk;
	struct connection *c;
	struct turns *t;
	u32 sequence[2];
	u64 now;
	int unread;

	if (!sk)
		return 0;
	c = connection_of(sk);
	if (!c || c->turns.mode <= MODE_FORGOTTEN || sk->__sk_common.skc_state == TCP_SYN_SENT)
		return 0;
	t = &c->turns;
	if (is_unwatched(sk)) {
		leave(c, sk, CONTEXT_ORDERED);
		if (t->mode == MODE_TURNS)
			forget(t, sk);
		return 0;
	}
	count_cost(sk, &t->exchange.process, COST_VISIT);
	if (aggregate)
		follow_window(t, kernel_cast(tcp_sock, sk));
	unread = t->role == ROLE_CLIENT && unread_payload(sk, kernel_cast(tcp_sock, sk));
	moved_sequences(t, sk, sequence);
	if (bpf_preempt_disable)
		bpf_preempt_disable();
	if (lock_if_free(&c->turns.locked)) {
		now = bpf_ktime_get_ns();
		follow_client(t);
		t->exchange.context = CONTEXT_ORDERED;
		on_quiet(t, now, stopping ? 0 : settle, request_timeout, unread && !stopping, sequence);
		settle_tally_here(t, CONTEXT_ORDERED);
		t->exchange.context = CONTEXT_HOOK;
		if (is_forgettable(t, sk, now))
			forget(t, sk);
		unlock(&c->turns.locked);
	}
	if (bpf_preempt_enable)
		bpf_preempt_enable();
	return 0;
}

/* Read by user space every half `settle`. */
SEC("iter/bpf_sk_storage_map")
int forget_datagrams(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct sock *sk = ctx->sk;

	if (sk)
		forget_quiet_datagrams(sk);
	return 0;
}

/* Run once by the agent: in a pid namespace its getpid() is not the number that the kernel compares with. */
SEC("syscall")
int identify_agent(void *ctx)
{
	agent_tgid = bpf_get_current_pid_tgid() >> 32;
	return 0;
}
