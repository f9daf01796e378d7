/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* UDP: a datagram is a request or the response to one; what belongs together is decided in datagram.h. Requests without a
 * response time out.
 */
#ifndef WIRESPAN_UDP_EXCHANGES_H
#define WIRESPAN_UDP_EXCHANGES_H

#include "udp_requests.h"

/* Set before load. */
const volatile u64 udp_timeout = 5000000000;

/* The request in this flow that the datagram answers, and its key. */
inline_always struct request *answered_request(const struct datagram *g, u64 name, struct request_key *key)
{
	struct request *r = NULL;
	struct flow *flow;

	key->flow = name;
	if (dns_kind(g->head, g->captured) == DNS_RESPONSE) {
		key->number = dns_id(g->head);
		key->is_query = 1;
		r = bpf_map_lookup_elem(&requests, key);
		if (r)
			return r;
	}
	key->is_query = 0;
	flow = bpf_map_lookup_elem(&flows, &name);
	if (!flow || !take_request(flow, &key->number))
		return NULL;
	return bpf_map_lookup_elem(&requests, key);
}

inline_always void answer_request(struct sock *sk, struct udp_socket *u, struct udp_scratch *s, u64 name,
				  const struct request_key *key, struct request *r, u64 now)
{
	const struct datagram *g = &s->datagram;
	struct exchange *x = &r->exchange;
	const struct client *client;

	if (__sync_lock_test_and_set(&r->claimed, 1))
		return;
	x->response_start = now;
	x->response_end = now;
	x->response_size = g->size;
	x->response_captured = g->captured;
	__builtin_memcpy(x->response_head, g->head, RESPONSE_HEAD);
	if (x->connection.role == ROLE_CLIENT) {
		x->arrived = g->time;
		if (is_unspecified(x->connection.local_address))
			__builtin_memcpy(x->connection.local_address, g->local, sizeof(g->local));
		announce_once(u, sk, x);
		output_datagrams(r);
	} else {
		if (r->anonymous)
			name_peer(x, name, g->peer, g->peer_port);
		client = client_of_datagram(x, now);
		x->flags |= FLAG_SEND_START_UNKNOWN;
		if (client && client->kind == CLIENT_OBSERVED && !client_is_unwatched(client))
			x->flags |= FLAG_PEER_OBSERVED;
		else if (client)
			x->flags &= ~FLAG_PEER_OBSERVED;
		x->connection.peer_tgid = client ? client->tgid : 0;
		if (!client || client->kind != CLIENT_AGENT)
			output_datagrams(r);
	}
	bpf_map_delete_elem(&requests, key);
}

/* A request that was answered before the hook that tells of it ran: see take_ahead(). */
inline_always struct request *request_ahead(struct sock *sk, struct udp_socket *u, struct udp_scratch *s, u64 name,
					    struct request_key *key, u64 now)
{
	struct datagram *g = &s->datagram;

	s->answer = *g;
	if (!take_ahead(&u->queue, s->answer.peer, s->answer.peer_port, g))
		return NULL;
	s->has_user = 0;
	on_request(sk, u, s, name, now);
	*g = s->answer;
	return answered_request(g, name, key);
}

/* Who is asked by a multicast, or behind a load balancer that rewrites the addresses of sockets, answers from an address
 * that nothing was sent to.
 */
inline_always struct request *request_to_another(const struct udp_socket *u, const struct datagram *g, u64 name,
						 struct request_key *key)
{
	if (bpf_map_lookup_elem(&flows, &name))
		return NULL;
	return answered_request(g, flow_name(u->cookie, ROLE_CLIENT, u->latest_peer, u->latest_port), key);
}

/* Returns whether the datagram is a response to a request that waits. */
inline_always int on_response(struct sock *sk, struct udp_socket *u, struct udp_scratch *s, u64 name, u64 now)
{
	const u64 nobody[2] = {};
	struct request_key key = {};
	struct request *r = answered_request(&s->datagram, name, &key);

	if (!r && u->role == ROLE_CLIENT)
		r = request_to_another(u, &s->datagram, name, &key);
	if (!r && u->role == ROLE_SERVER)
		r = request_ahead(sk, u, s, name, &key, now);
	if (!r && u->role == ROLE_SERVER)
		r = answered_request(&s->datagram, flow_name(u->cookie, ROLE_SERVER, nobody, 0), &key);
	if (!r)
		return 0;
	answer_request(sk, u, s, name, &key, r, now);
	return 1;
}

inline_always void note_peer(struct udp_socket *u, const struct datagram *g)
{
	if (u->latest_port == g->peer_port && u->latest_peer[0] == g->peer[0] && u->latest_peer[1] == g->peer[1])
		return;
	if (u->latest_port)
		u->many_peers = 1;
	u->latest_port = g->peer_port;
	u->latest_peer[0] = g->peer[0];
	u->latest_peer[1] = g->peer[1];
}

/* A datagram was sent or received. Under the socket's lock. */
inline_always void on_datagram(struct sock *sk, struct udp_socket *u, struct udp_scratch *s, u32 direction, u64 now)
{
	const struct datagram *g = &s->datagram;
	u64 name;

	u->last = now;
	if (unlikely(g->flags & DATAGRAM_ANSWERED))
		return;
	if (is_quic(g->head, g->captured, g->size))
		u->quic = 1;
	if (u->quic) {
		count(COUNT_DATAGRAMS_QUIC);
		return;
	}
	if (!u->role)
		u->role = role_of_datagram(sk, u, direction);
	if (!is_selected_port(u->role == ROLE_CLIENT ? g->peer_port : local_port_of(sk)))
		return;
	name = flow_name(u->cookie, u->role, g->peer, g->peer_port);
	if (direction == (u->role == ROLE_CLIENT ? DIRECTION_SENT : DIRECTION_RECEIVED))
		on_request(sk, u, s, name, now);
	else if (!on_response(sk, u, s, name, now))
		count(COUNT_MESSAGES_PUSHED);
}

/* ---- timeouts ------------------------------------------------------------------------------------------------ */

static long expire_request(struct bpf_map *map, struct request_key *key, struct request *r, u64 *now)
{
	struct exchange *x = &r->exchange;
	u64 until = x->request_start + udp_timeout, name = key->flow;
	const struct flow *flow;

	if (unlikely(cgroups_unwatched) && group_is_unwatched(r->cgroup)) { /* its answer is not seen */
		bpf_map_delete_elem(&requests, key);
		return 0;
	}
	if (*now < until)
		return 0;
	x->context = CONTEXT_ORDERED;
	flow = bpf_map_lookup_elem(&flows, &name);
	if (x->connection.role == ROLE_CLIENT && (key->is_query || (flow && wanted_answer(flow)))) {
		finish_request(key, r, OUTCOME_TIMEOUT, until);
	} else if (!__sync_lock_test_and_set(&r->claimed, 1)) {
		count(COUNT_MESSAGES_ONE_WAY);
		bpf_map_delete_elem(&requests, key);
	}
	return 0;
}

/* Run by user space every half `settle`: requests that have waited for `udp_timeout`. */
SEC("syscall")
int expire_requests(void *ctx)
{
	u64 now = bpf_ktime_get_ns();

	bpf_for_each_map_elem(&requests, expire_request, &now, 0);
	return 0;
}

#endif
