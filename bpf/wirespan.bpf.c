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

#include "udp.h" /* which asks for the process, too */

/* ---- I/O ------------------------------------------------------------------------------------------------- */

/* The ids of both ends would differ: no pairs. */
inline_always void decide_by_hooks(struct turns *t)
{
	t->by_hooks = 1;
	t->exchange.connection.flags &= ~FLAG_PEER_OBSERVED;
	count(COUNT_CONNECTIONS_BY_HOOKS);
}

/* When a send began and ended. It ended when its last packet was handed down, if that was in this call: the hook's own
 * time would be later, and reading the clock costs as much as the rest of a hook.
 */
inline_always void time_send(const struct turns *t, const struct tcp_sock *tp, struct io *io)
{
	u32 first = t->sequence[DIRECTION_SENT] + (u32)t->position[DIRECTION_SENT];

	io->start = t->send_started;
	io->end = tp->tcp_clock_cache; /* or later, if something has come in since */
	if (!io->start && io->size <= TIMED_BY_PACKET && !t->by_hooks && (s32)(tp->snd_nxt - first) > 0) {
		io->start = io->end = first_transmission(io);
		io->by_packet = 1;
	}
	if (unlikely(!io->start)) {
		io->start_unknown = io->by_packet || t->by_hooks || io->size > TIMED_BY_PACKET;
		io->start = io->end = bpf_ktime_get_ns();
	}
	if (io->end < io->start)
		io->end = io->start;
}

/* When a receive returned: the kernel notes the time of each copy to the application (tcp_rcv_space_adjust(), since
 * 4.13). If that is the time of the last arrival it did not.
 */
inline_always void time_receive(const struct turns *t, const struct tcp_sock *tp, struct io *io)
{
	u64 now = tp->tcp_clock_cache;

	if (unlikely(now <= t->arrivals.latest))
		now = bpf_ktime_get_ns();
	io->start = io->end = now;
}

/* The connection of an I/O; NULL if it has no state and gets none. */
inline_always struct connection *connection_of_io(struct sock *sk, const struct io *io)
{
	u64 sent = io->direction == DIRECTION_SENT ? io->size : 0;

	return taken_up(sk, sent, io->size - sent, 1);
}

inline_always void on_socket_io(struct connection *c, struct sock *sk, struct io *io)
{
	struct tcp_sock *tp = kernel_cast(tcp_sock, sk);
	struct turns *t = &c->turns;
	u32 sequence[2];

	if (unlikely(!lock(&c->turns.locked)))
		return;
	if (unlikely(t->mode == MODE_FORGOTTEN)) {
		unlock(&c->turns.locked);
		c = connection_of_io(sk, io);
		if (!c || !lock(&c->turns.locked))
			return;
		t = &c->turns;
		if (unlikely(t->mode == MODE_IGNORED)) {
			unlock(&t->locked);
			return;
		}
	}
	if (io->direction == DIRECTION_SENT)
		time_send(t, tp, io);
	else
		time_receive(t, tp, io);
	next_sequences(sk, tp, sequence);
	if (unlikely(!t->sequence[DIRECTION_RECEIVED])) /* taken up with its SYN, and connected since */
		t->sequence[DIRECTION_RECEIVED] =
			sequence[DIRECTION_RECEIVED] - (io->direction == DIRECTION_RECEIVED ? (u32)io->size : 0);
	if (unlikely(t->phase == PHASE_JOINED) && starting) {
		if (io->direction == DIRECTION_SENT)
			t->send_started = 0;
		pass_over(t, DIRECTION_SENT, 0, sequence);
		unlock(&c->turns.locked);
		return;
	}
	if (unlikely(tp->inet_conn.icsk_ulp_ops) && !t->by_hooks)
		decide_by_hooks(t);
	if (unlikely(on_io(t, io, sequence))) {
		c->turns.end_told = 0;
		output_io(t, io);
	}
	if (select_processes && io->direction == DIRECTION_SENT && t->mode == MODE_TURNS)
		follow_requester(t);
	unlock(&c->turns.locked);
}

/* How far the streams have moved, by direction; as far as is accounted if the socket cannot tell any more. */
inline_always void moved_sequences(const struct turns *t, struct sock *sk, u32 *sequence)
{
	struct tcp_sock *tp = kernel_cast(tcp_sock, sk);

	if (unlikely(is_disconnected(tp)))
		accounted_sequences(t, sequence);
	else
		next_sequences(sk, tp, sequence);
}

inline_always void on_socket_end(struct connection *c, struct sock *sk, u8 outcome, u8 context)
{
	u64 now = bpf_ktime_get_ns();
	u32 sequence[2];

	if (c->turns.mode == MODE_SEGMENTS) { /* told once, however often the end is read */
		if (!c->turns.end_told)
			c->turns.end_told = output_end(&c->turns, now, outcome);
		return;
	}
	moved_sequences(&c->turns, sk, sequence);
	if (unlikely(!lock(&c->turns.locked)))
		return;
	c->turns.exchange.context = context;
	on_end(&c->turns, outcome, now, sequence);
	c->turns.exchange.context = CONTEXT_HOOK;
	unlock(&c->turns.locked);
}

/* The connection whose I/O this is; NULL if it is none of ours. */
inline_always struct connection *watched(struct sock *sk, const struct io *io)
{
	struct connection *c = connection_of_io(sk, io);

	return c && c->turns.mode != MODE_IGNORED ? c : NULL;
}

inline_always void stream_sent(struct sock *sk, int ret)
{
	struct io io = {.direction = DIRECTION_SENT, .size = ret, .payload.sk = sk};
	struct connection *c;

	if (ret > 0) {
		c = watched(sk, &io);
		if (c)
			on_socket_io(c, sk, &io);
	} else {
		c = connection_of(sk);
		if (c)
			c->turns.send_started = 0;
	}
}

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

inline_always int is_connection_error(int error)
{
	return error == ECONNRESET || error == EPIPE || error == ETIMEDOUT || error == ECONNABORTED ||
	       error == EHOSTUNREACH || error == ENETUNREACH;
}

inline_always void stream_received(struct sock *sk, int ret, int flags)
{
	struct io io = {.direction = DIRECTION_RECEIVED, .size = ret, .payload.sk = sk};
	struct connection *c;

	if (ret > 0) {
		io.payload.discarded = !!(flags & MSG_TRUNC);
		c = watched(sk, &io);
		if (c)
			on_socket_io(c, sk, &io);
		return;
	}
	c = connection_of(sk);
	if (!c)
		return;
	/* For a server the end of the requests is not the end of its response (half-close). */
	if (ret == 0 && has_fin(sk) && c->turns.role == ROLE_CLIENT && !unread_payload(sk, kernel_cast(tcp_sock, sk)))
		on_socket_end(c, sk, OUTCOME_CONNECTION_CLOSED, CONTEXT_HOOK);
	else if (ret < 0 && is_connection_error(-ret))
		on_socket_end(c, sk, ret == -ECONNRESET ? OUTCOME_CONNECTION_RESET : OUTCOME_CONNECTION_CLOSED,
			      CONTEXT_HOOK);
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

/* A connection that has no state is taken up before its bytes move: they may be answered before the hook of this send runs, and
 * would be taken for older ones. One look at the socket tells, but where other programs keep something there, too.
 */
inline_always int has_state(const struct sock *sk)
{
	return !!untrusted(sock, sk)->sk_bpf_storage;
}

/* A send that cannot block, and whose packet will tell when it left: no need to write anything down. */
inline_always int is_timed_by_packet(const struct sock *sk, u64 size, int size_goal)
{
	return size <= (u32)size_goal && size <= TIMED_BY_PACKET && size <= (u32)sk->sk_sndbuf / 4 &&
	       !kernel_cast(tcp_sock, sk)->packets_out;
}

inline_always void send_begins(struct sock *sk, struct msghdr *msg, int size_goal)
{
	struct process_info process;
	struct connection *c;

	if (!select_processes && likely(has_state(sk) && is_timed_by_packet(sk, msg->msg_iter.count, size_goal)))
		return;
	c = taken_up(sk, 0, 0, 1);
	if (!c || c->turns.send_started)
		return;
	/* A server on another CPU may have answered before the hook of this send runs. */
	if (select_processes && c->turns.mode == MODE_TURNS && c->turns.role == ROLE_CLIENT) {
		describe_process(&process);
		note_requester(&c->turns, &process);
	}
	if (!is_timed_by_packet(sk, msg->msg_iter.count, size_goal))
		c->turns.send_started = bpf_ktime_get_ns();
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

inline_always void stream_arrived(struct sock *sk)
{
	struct connection *c;
	struct tcp_sock *tp;
	struct turns *t;
	u64 received_to, from;

	c = taken_up(sk, 0, 0, 0);
	if (!c || c->turns.mode <= MODE_IGNORED)
		return;
	t = &c->turns;
	tp = kernel_cast(tcp_sock, sk);
	received_to = received_payload(sk, tp);
	from = on_arrival(t, received_to - unread_payload(sk, tp), received_to, tp->tcp_clock_cache);
	if (reads_payload() && from < received_to)
		keep_arrived_head(&t->arrivals, sk, from, received_to, t->sequence[DIRECTION_RECEIVED] + (u32)from,
				  request_direction(t) == DIRECTION_RECEIVED ? REQUEST_HEAD : RESPONSE_HEAD);
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
	if (c && c->turns.mode > MODE_FORGOTTEN)
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
	if (aggregate)
		follow_window(t, kernel_cast(tcp_sock, sk));
	unread = t->role == ROLE_CLIENT && unread_payload(sk, kernel_cast(tcp_sock, sk));
	moved_sequences(t, sk, sequence);
	if (bpf_preempt_disable)
		bpf_preempt_disable();
	if (lock_if_free(&c->turns.locked)) {
		now = bpf_ktime_get_ns();
		t->exchange.context = CONTEXT_ORDERED;
		on_quiet(t, now, stopping ? 0 : settle, request_timeout, unread && !stopping, sequence);
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
