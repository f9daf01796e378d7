/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* UDP: requests that wait, and their responses. What belongs together is decided in datagram.h. */
#ifndef WIRESPAN_UDP_EXCHANGES_H
#define WIRESPAN_UDP_EXCHANGES_H

#include "adoption.h"
#include "output.h"
#include "udp_socket.h"
#include "user_payload.h"

/* Set before load. */
const volatile u64 udp_timeout = 5000000000;

#define FLOWS 16384

/* By name. The oldest go when there are too many: their requests are then counted as one-way. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, FLOWS);
	__type(key, u64);
	__type(value, struct flow);
} flows SEC(".maps");

#define REQUESTS 16384

struct request_key {
	u64 flow;
	u32 number; /* or the id of a DNS query */
	u32 is_query;
};

struct request {
	struct process_info requester; /* with selection by process: who sent it, tgid 0 if that is not known */
	struct exchange exchange;
	u32 claimed; /* somebody finishes it */
	u32 anonymous; /* who sent it is not known */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, REQUESTS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct request_key);
	__type(value, struct request);
} requests SEC(".maps");

#define OCCURRENCES 16384

/* How many requests of one content a flow had. The oldest go: theirs are counted anew. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, OCCURRENCES);
	__type(key, u64);
	__type(value, u32);
} occurrences SEC(".maps");

/* The datagram of the hook that runs; see struct scratch in output.h. */
struct udp_scratch {
	struct datagram datagram;
	u8 datagram_slack[DATAGRAM_HEAD];
	struct datagram answer;
	u8 read[DATAGRAM_HEAD]; /* the first bytes of what was received, out of its process' memory */
	u8 read_slack[DATAGRAM_HEAD];
	struct user_datagram user;
	u64 has_user; /* whether that is known */
	struct request request;
	u8 slack[2 * REQUEST_HEAD];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct udp_scratch);
} udp_scratch SEC(".maps");

inline_always struct flow *flow_of(u64 name)
{
	struct flow *flow = bpf_map_lookup_elem(&flows, &name), none = {};

	if (flow)
		return flow;
	bpf_map_update_elem(&flows, &name, &none, BPF_NOEXIST);
	return bpf_map_lookup_elem(&flows, &name);
}

/* How many requests of this content the flow had before. */
inline_always u32 occurrence_of(u64 flow, u64 content)
{
	u64 key = flow ^ content;
	u32 *seen = bpf_map_lookup_elem(&occurrences, &key), first = 1;

	if (seen)
		return __sync_fetch_and_add(seen, 1);
	bpf_map_update_elem(&occurrences, &key, &first, BPF_ANY);
	return 0;
}

/* The other end of an exchange, and what follows from it. */
inline_always void name_peer(struct exchange *x, u64 flow, const u64 *peer, u16 port)
{
	struct connection_info *info = &x->connection;

	info->cookie = flow;
	__builtin_memcpy(info->remote_address, peer, sizeof(info->remote_address));
	info->remote_port = port;
	info->family = is_mapped(info->remote_address) ? AF_INET : AF_INET6;
	info->sequence = occurrence_of(flow, x->position);
}

inline_always int is_unspecified(const u8 *address)
{
	return !((u64 *)address)[1] || (is_mapped(address) && !((u32 *)address)[3]);
}

inline_always void describe_socket(struct connection_info *info, struct sock *sk, const struct datagram *g, u8 role)
{
	copy_local_address(info->local_address, sk);
	if (is_unspecified(info->local_address) && g->local[1])
		__builtin_memcpy(info->local_address, g->local, sizeof(info->local_address));
	info->local_port = local_port_of(sk);
	info->netns = sk->__sk_common.skc_net.net->ns.inum;
	info->role = role;
	info->transport = IPPROTO_UDP;
	info->peer_tgid = 0;
	info->flags = role == ROLE_SERVER && g->flags & DATAGRAM_LOOPED ? FLAG_PEER_OBSERVED : 0;
}

inline_always struct client_key udp_client_key(const u8 *address, u16 port, u32 netns)
{
	struct client_key key = client_key_of(address, port, netns);

	key.reserved = IPPROTO_UDP;
	return key;
}

/* Who receives from this socket on this machine will know that it is the agent's, or that it is watched. */
inline_always void announce_datagrams(struct sock *sk, const u8 *address, u8 kind)
{
	struct client client = {.tgid = bpf_get_current_pid_tgid() >> 32, .kind = kind, .time = bpf_ktime_get_ns()};
	struct client_key key = udp_client_key(address, local_port_of(sk), sk->__sk_common.skc_net.net->ns.inum);

	bpf_map_update_elem(&clients, &key, &client, BPF_ANY);
}

inline_always void announce_once(struct udp_socket *u, struct sock *sk, const struct exchange *x)
{
	u8 kind = x->request_captured || !x->request_size ? CLIENT_OBSERVED : CLIENT_UNREADABLE;

	if (u->announced == kind || is_unspecified(x->connection.local_address))
		return;
	announce_datagrams(sk, x->connection.local_address, kind);
	u->announced = kind;
}

/* With selection by process: at the client's end who sent it, at the server's end from whom it came. */
inline_always void name_requester(struct request *r)
{
	const struct connection_info *c = &r->exchange.connection;
	int is_client = c->role == ROLE_CLIENT;
	struct client_key key = udp_client_key(is_client ? c->local_address : c->remote_address,
					       is_client ? c->local_port : c->remote_port, c->netns);
	const struct process_info *found;

	if (is_client) {
		r->requester = r->exchange.process;
		bpf_map_update_elem(&requesters, &key, &r->requester, BPF_ANY);
		return;
	}
	found = bpf_map_lookup_elem(&requesters, &key);
	if (found)
		r->requester = *found;
	else
		r->requester.tgid = 0;
}

/* As output_exchange(). */
inline_always void output_datagrams(struct request *r)
{
	struct exchange *x = &r->exchange;

	if (!is_kept(x, select_processes && image_is_left_out(&x->process)))
		return;
	if (unlikely(select_processes)) {
		name_requester(r);
		output_row(x, r, sizeof(r->requester));
	} else {
		output_row(x, x, 0);
	}
}

/* More of a request than DATAGRAM_HEAD, out of its process' memory: if that begins as the packet did. */
inline_always void extend_head(struct udp_scratch *s)
{
	struct exchange *x = &s->request.exchange;
	const struct datagram *g = &s->datagram;
	u32 have;

	if (!s->has_user || !reads_payload())
		return;
	have = gather(&s->user.buffer, x->request_head, REQUEST_HEAD, g->size);
	if (have > DATAGRAM_HEAD && *(u64 *)x->request_head == *(u64 *)g->head)
		x->request_captured = have;
	else
		__builtin_memcpy(x->request_head, g->head, DATAGRAM_HEAD);
}

inline_always int finish_request(const struct request_key *key, struct request *r, u8 outcome, u64 end)
{
	if (__sync_lock_test_and_set(&r->claimed, 1))
		return 0;
	r->exchange.outcome = outcome;
	r->exchange.response_end = end;
	output_datagrams(r);
	bpf_map_delete_elem(&requests, key);
	return 1;
}

inline_always void repeat_request(struct request *r, u64 now)
{
	r->exchange.flags |= FLAG_RESENT;
	r->exchange.request_end = now;
}

/* Where the request is kept; 0 if it is no new one. */
inline_always int place_request(struct udp_socket *u, struct request_key *key, u64 content, enum dns kind, u32 id,
				u64 now)
{
	struct request *waiting;
	struct flow *flow;

	if (kind == DNS_QUERY) {
		key->number = id;
		key->is_query = 1;
		u->recent_ids[u->queries++ % RECENT_IDS] = id;
		waiting = bpf_map_lookup_elem(&requests, key);
		if (!waiting)
			return 1;
		if (waiting->exchange.position == content && !waiting->claimed) {
			repeat_request(waiting, now);
			return 0;
		}
		finish_request(key, waiting, OUTCOME_TIMEOUT, now); /* its id means something else now */
		return 1;
	}
	flow = flow_of(key->flow);
	if (!flow)
		return 0;
	switch (begin_request(flow, content, now)) {
	case REQUEST_ONE_WAY:
		count(COUNT_DATAGRAMS_ONE_WAY);
		return 0;
	case REQUEST_REPEATED:
		key->number = flow->next - 1;
		waiting = bpf_map_lookup_elem(&requests, key);
		if (waiting) {
			repeat_request(waiting, now);
			return 0;
		}
		begin_again(flow);
		key->number++;
		return 1;
	default:
		key->number = flow->next - 1;
		return 1;
	}
}

static __attribute__((noinline)) int on_request(struct sock *sk, struct udp_socket *u, struct udp_scratch *s, u64 name,
						u64 now)
{
	struct datagram *g = &s->datagram;
	struct request *r = &s->request;
	struct exchange *x = &r->exchange;
	struct request_key key = {.flow = name};
	u8 role = u->role;
	enum dns kind = dns_kind(g->head, g->captured);
	u64 content = content_hash(id_key[0], id_key[1], g);

	if (!place_request(u, &key, content, kind, dns_id(g->head), now))
		return 0;
	__builtin_memset(x, 0, EXCHANGE_SHORT);
	r->claimed = 0;
	r->anonymous = !g->peer[1];
	describe_socket(&x->connection, sk, g, role);
	x->position = content;
	if (!r->anonymous)
		name_peer(x, name, g->peer, g->peer_port);
	describe_process(&x->process);
	if (unlikely(select_processes) && role == ROLE_CLIENT)
		name_requester(r);
	x->arrived = role == ROLE_SERVER ? g->time : 0;
	x->request_start = x->request_end = now;
	x->request_size = g->size;
	x->flags = x->connection.flags | (role == ROLE_CLIENT ? FLAG_SEND_START_UNKNOWN : 0);
	x->request_captured = g->captured;
	if (role == ROLE_CLIENT)
		announce_once(u, sk, x);
	__builtin_memcpy(x->request_head, g->head, DATAGRAM_HEAD);
	if (g->size > DATAGRAM_HEAD && (kind == DNS_QUERY || is_worth_more(g->head[0], REQUEST_HEAD)))
		extend_head(s);
	if (bpf_map_update_elem(&requests, &key, r, BPF_ANY))
		count(COUNT_DATAGRAMS_REQUESTS_FULL);
	return 0;
}

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

/* The kernel has no hook where a socket of UDP is closed, so another one may have its port by now. */
#define AGENT_FOR 60000000000

/* The server's end: whether the client is watched too, or is the agent. */
inline_always const struct client *client_of_datagram(const struct exchange *x, u64 now)
{
	const struct connection_info *c = &x->connection;
	struct client_key key = udp_client_key(c->remote_address, c->remote_port, c->netns);
	const struct client *client = bpf_map_lookup_elem(&clients, &key);

	if (client && client->kind == CLIENT_AGENT && now > client->time + AGENT_FOR)
		return NULL;
	return client;
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
		if (client && client->kind == CLIENT_OBSERVED)
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

	if (*now < until)
		return 0;
	x->context = CONTEXT_ORDERED;
	flow = bpf_map_lookup_elem(&flows, &name);
	if (x->connection.role == ROLE_CLIENT && (key->is_query || (flow && wanted_answer(flow)))) {
		finish_request(key, r, OUTCOME_TIMEOUT, until);
	} else if (!__sync_lock_test_and_set(&r->claimed, 1)) {
		count(COUNT_DATAGRAMS_ONE_WAY);
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
