/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* TCP: what the hooks of a socket tell the state machine of its connection. */
#ifndef WIRESPAN_TCP_H
#define WIRESPAN_TCP_H

#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "adoption.h"
#include "connection.h"
#include "kernel.h"
#include "lock.h"
#include "output.h"
#include "packet_payload.h"
#include "positions.h"
#include "selection.h"
#include "unseen.h"

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
		settle_tally(t, CONTEXT_HOOK);
		if (!is_passed_over(sk, 1)) { /* the only ones that keep their state */
			c->turns.end_told = 0;
			output_io(t, io);
		}
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
	settle_tally(&c->turns, context);
	c->turns.exchange.context = CONTEXT_HOOK;
	unlock(&c->turns.locked);
}

/* The socket's group is not watched any more: what had ended is counted, and what was under way is none of ours. */
static __attribute__((noinline)) int leave(struct connection *c, struct sock *sk, u8 context)
{
	struct turns *t = &c->turns;
	u32 sequence[2];

	if (!lock(&t->locked))
		return 0;
	settle_tally(t, context);
	if (t->mode == MODE_SEGMENTS) {
		if (!t->end_told) /* as one that ends with all answered: of what is not, nobody will know */
			t->end_told = output_end(t, bpf_ktime_get_ns(), OUTCOME_ANSWERED);
		moved_sequences(t, sk, sequence);
		pass_over(t, DIRECTION_SENT, 0, sequence);
	}
	unlock(&t->locked);
	return 0;
}

/* At the server's end: the group of its client may have come to be watched, or not to be. Under the lock. */
inline_always void follow_client(struct turns *t)
{
	struct connection_info *info = &t->exchange.connection;

	if (likely(!cgroups_unwatched && !(info->flags & FLAG_PEER_UNWATCHED)))
		return;
	if (t->role != ROLE_SERVER || t->by_hooks || !(info->flags & (FLAG_PEER_OBSERVED | FLAG_PEER_UNWATCHED)))
		return;
	know_client(info);
	if (info->flags & FLAG_PEER_UNWATCHED)
		t->exchange.flags &= ~FLAG_PEER_OBSERVED;
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

#endif
