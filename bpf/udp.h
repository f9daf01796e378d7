/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* UDP in the kernel: what the hooks see of datagrams.
 *
 * The kernel has no hook where a send of UDP begins, so sends have the time of their return, and say so.
 */
#ifndef WIRESPAN_UDP_H
#define WIRESPAN_UDP_H

#include "lock.h"
#include "udp_arrivals.h"
#include "udp_exchanges.h"
#include "user_datagram.h"

inline_always struct udp_scratch *udp_scratch_of_cpu(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&udp_scratch, &zero);
}

inline_always int is_agent(void)
{
	return bpf_get_current_pid_tgid() >> 32 == agent_tgid;
}

inline_always void ignore_datagrams(struct udp_socket *u, struct sock *sk)
{
	u8 address[16];

	copy_local_address(address, sk);
	if (!is_unspecified(address))
		announce_datagrams(sk, address, CLIENT_AGENT);
	u->mode = MODE_IGNORED;
}

inline_always void connected_peer(struct sock *sk, struct datagram *g)
{
	copy_remote_address((u8 *)g->peer, sk);
	g->peer_port = __builtin_bswap16(sk->__sk_common.skc_dport);
}

/* The peer does not listen: ICMP has said so. */
inline_always void on_refusal(struct sock *sk, struct udp_socket *u, struct udp_scratch *s, u64 now)
{
	struct request_key key = {};
	struct request *r;
	struct flow *flow;

	if (!is_connected_datagram(sk))
		return;
	connected_peer(sk, &s->datagram);
	key.flow = flow_name(u->cookie, ROLE_CLIENT, s->datagram.peer, s->datagram.peer_port);
	key.is_query = 1;
	for (u32 i = 0; i < RECENT_IDS; i++) {
		key.number = u->recent_ids[i];
		r = bpf_map_lookup_elem(&requests, &key);
		if (r)
			finish_request(&key, r, OUTCOME_CONNECTION_REFUSED, now);
	}
	key.is_query = 0;
	flow = bpf_map_lookup_elem(&flows, &key.flow);
	if (flow && take_request(flow, &key.number)) {
		r = bpf_map_lookup_elem(&requests, &key);
		if (r)
			finish_request(&key, r, OUTCOME_CONNECTION_REFUSED, now);
	}
}

/* What was sent, and to whom. Returns 0 if that is not known. */
inline_always int describe_sent(struct sock *sk, struct udp_socket *u, struct udp_scratch *s, u32 size)
{
	struct datagram *g = &s->datagram;

	__builtin_memset(g, 0, sizeof(*g));
	g->size = size;
	s->has_user = read_payload ? find_user_datagram(file_of(sk), &u->sending, &s->user) : 0;
	if (!read_payload || !s->has_user || !read_user_name(s->user.name, g)) {
		if (!is_connected_datagram(sk))
			return 0;
		connected_peer(sk, g);
	}
	if (reads_payload() && s->has_user)
		g->captured = copy_user_datagram(&s->user.buffer, (struct datagram_space *)g->head, size);
	else if (reads_payload())
		count(COUNT_PAYLOAD_UNAVAILABLE);
	return 1;
}

/* Whether a socket that has no state gets some. */
inline_always int is_sent_to_selected(struct sock *sk, struct udp_scratch *s)
{
	struct many first = {};

	if (socket_is_selected(sk))
		return 1;
	/* The messages of one call may go to several ports. */
	if (!read_payload || !find_user_datagram(file_of(sk), &first, &s->user) || first.messages ||
	    !read_user_name(s->user.name, &s->datagram))
		return !is_connected_datagram(sk);
	return is_selected_port(s->datagram.peer_port);
}

/* The state of a socket for the hook that runs, under its lock; NULL if there is none. size: what the call returned. */
inline_always struct udp_socket *locked_udp_socket(struct sock *sk, struct udp_scratch *s, u32 direction, int size)
{
	struct udp_socket *u = udp_socket_of(sk);

	if (likely(u)) {
		if (u->mode == MODE_IGNORED && !is_agent())
			return NULL;
		if (!lock(&u->locked))
			return NULL;
		if (likely(u->mode != MODE_FORGOTTEN))
			return u;
		unlock(&u->locked);
	} else if (is_passed_over(sk, size > 0)) {
		return NULL;
	} else if (size < 0 || (direction == DIRECTION_SENT ? !is_sent_to_selected(sk, s) : !socket_is_selected(sk))) {
		return NULL;
	}
	u = new_udp_socket(sk, unread_datagrams(sk));
	return u && lock(&u->locked) ? u : NULL;
}

static __attribute__((noinline)) int datagram_sent(struct sock *sk, int size)
{
	struct udp_scratch *s = udp_scratch_of_cpu();
	struct udp_socket *u;
	u64 now;

	if (!s)
		return 0;
	u = locked_udp_socket(sk, s, DIRECTION_SENT, size);
	if (!u)
		return 0;
	now = bpf_ktime_get_ns();
	if (unlikely(is_agent())) {
		ignore_datagrams(u, sk);
		unlock(&u->locked);
		return 0;
	}
	if (size < 0) {
		u->sending.messages = 0;
		if (size == -ECONNREFUSED)
			on_refusal(sk, u, s, now);
	} else if (describe_sent(sk, u, s, size)) {
		note_peer(u, &s->datagram);
		on_datagram(sk, u, s, DIRECTION_SENT, now);
	} else {
		count(COUNT_DATAGRAMS_PEER_UNKNOWN);
	}
	unlock(&u->locked);
	return 0;
}

/* Of a client's receives not each is looked at, so the messages of its calls are not counted. */
inline_always int find_received(struct sock *sk, struct udp_socket *u, struct udp_scratch *s)
{
	struct many one = {};

	if (u->role == ROLE_CLIENT)
		return find_user_datagram(file_of(sk), &one, &s->user) && !one.messages;
	return find_user_datagram(file_of(sk), &u->receiving, &s->user);
}

/* Into s->read. Returns how many bytes that are. */
inline_always u32 read_received(struct sock *sk, struct udp_socket *u, struct udp_scratch *s, u32 size)
{
	s->has_user = find_received(sk, u, s);
	__builtin_memset(s->read, 0, DATAGRAM_HEAD);
	return s->has_user ? copy_user_datagram(&s->user.buffer, (struct datagram_space *)s->read, size) : 0;
}

/* What was received, and who sent it. A server's request may do without: its response says who it was. */
static __attribute__((noinline)) int describe_received(struct sock *sk, struct udp_socket *u, struct udp_scratch *s,
						       u32 size, int discarded)
{
	int readable = reads_payload() && !discarded, noted;
	u32 all = size < DATAGRAM_HEAD ? size : DATAGRAM_HEAD, have = 0;
	struct datagram *g = &s->datagram;

	s->has_user = 0;
	if (readable && u->role != ROLE_CLIENT)
		have = read_received(sk, u, s, size);
	noted = take_arrival(&u->queue, size, have == all && size ? (const u64 *)s->read : NULL, g);
	if (!noted) {
		__builtin_memset(g, 0, sizeof(*g));
		g->size = size;
	}
	if (unlikely(!g->captured && size)) { /* or its packet is in pieces */
		if (readable && u->role == ROLE_CLIENT)
			have = read_received(sk, u, s, size);
		if (have)
			__builtin_memcpy(g->head, s->read, DATAGRAM_HEAD);
		g->captured = have;
	}
	if (noted) {
		u->local[0] = g->local[0];
		u->local[1] = g->local[1];
		return 1;
	}
	g->local[0] = u->local[0];
	g->local[1] = u->local[1];
	if (is_connected_datagram(sk)) {
		connected_peer(sk, g);
	} else if (u->role == ROLE_CLIENT) {
		if (u->many_peers)
			return 0;
		g->peer_port = u->latest_port;
		g->peer[0] = u->latest_peer[0];
		g->peer[1] = u->latest_peer[1];
	}
	return 1;
}

/* discarded: with MSG_TRUNC, `size` says more than the application's buffer holds. */
static __attribute__((noinline)) int datagram_received(struct sock *sk, int size, int discarded)
{
	struct udp_scratch *s = udp_scratch_of_cpu();
	struct udp_socket *u;
	u64 now;

	if (!s)
		return 0;
	u = locked_udp_socket(sk, s, DIRECTION_RECEIVED, size);
	if (!u)
		return 0;
	now = bpf_ktime_get_ns();
	if (unlikely(is_agent())) {
		ignore_datagrams(u, sk);
		unlock(&u->locked);
		return 0;
	}
	if (size < 0) {
		u->receiving.messages = 0;
		if (size == -ECONNREFUSED)
			on_refusal(sk, u, s, now);
	} else if (describe_received(sk, u, s, size, discarded)) {
		on_datagram(sk, u, s, DIRECTION_RECEIVED, now);
	} else {
		count(COUNT_DATAGRAMS_PEER_UNKNOWN);
	}
	unlock(&u->locked);
	return 0;
}

/* ---- after the last datagram ---------------------------------------------------------------------------------- */

/* The writers of the queue do not wait for the lock: they look again when they are done, see note_datagram(). */
inline_always void forget_quiet_datagrams(struct sock *sk)
{
	struct udp_socket *u = udp_socket_of(sk);
	u64 patience = FORGET_AFTER * 1000000ull;
	int unwatched = is_unwatched(sk);

	if (!u || u->mode != MODE_TURNS)
		return;
	if (patience < udp_timeout)
		patience = udp_timeout;
	if (bpf_preempt_disable)
		bpf_preempt_disable();
	if (lock_if_free(&u->locked)) {
		if ((unwatched && !u->quic) || is_forgettable_udp(sk, u, bpf_ktime_get_ns(), patience))
			forget_udp(u, sk);
		unlock(&u->locked);
	}
	if (bpf_preempt_enable)
		bpf_preempt_enable();
}

#endif
