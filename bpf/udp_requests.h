/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* UDP: requests that wait for their responses, by the flow that they are in. */
#ifndef WIRESPAN_UDP_REQUESTS_H
#define WIRESPAN_UDP_REQUESTS_H

#include "output.h"
#include "udp_ends.h"
#include "user_payload.h"

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
	u64 cgroup; /* of its socket */
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

/* As output_exchange(). A function of its own, and not static: the verifier then looks at it once. */
__attribute__((noinline)) int output_datagrams(struct request *r)
{
	struct exchange *x;

	if (!r)
		return 0;
	x = &r->exchange;
	if (wants_status())
		tell(x);
	if (!is_kept(x, NULL, select_processes && image_is_left_out(&x->process)))
		return 0;
	if (unlikely(cgroups_counted))
		add_cost(r->cgroup, &x->process, COST_RECORD);
	if (unlikely(select_processes)) {
		name_requester(r);
		output_row(x, r, sizeof(r->requester));
	} else {
		output_row(x, x, 0);
	}
	return 0;
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
		count(COUNT_MESSAGES_ONE_WAY);
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

/* A function of its own, as output_datagrams(): what both have on the stack would count where on_request() calls others, and
 * before Linux 6.13 the stacks of all have 512 bytes together.
 */
static __attribute__((noinline)) u64 content_of(const struct datagram *g)
{
	return content_hash(id_key[0], id_key[1], g);
}

/* A new request, whose position is in its exchange already. A function of its own for the same reason. */
static __attribute__((noinline)) void keep_request(struct sock *sk, struct udp_socket *u, struct udp_scratch *s,
						   const struct request_key *key, u64 now)
{
	struct datagram *g = &s->datagram;
	struct request *r = &s->request;
	struct exchange *x = &r->exchange;
	u8 role = u->role;

	r->claimed = 0;
	r->cgroup = cgroup_of(sk);
	r->anonymous = !g->peer[1];
	describe_socket(&x->connection, sk, g, role);
	if (!r->anonymous)
		name_peer(x, key->flow, g->peer, g->peer_port);
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
	if (g->size > DATAGRAM_HEAD && (key->is_query || is_worth_more(g->head[0], REQUEST_HEAD)))
		extend_head(s);
	if (bpf_map_update_elem(&requests, key, r, BPF_ANY))
		count(COUNT_DATAGRAMS_REQUESTS_FULL);
}

static __attribute__((noinline)) int on_request(struct sock *sk, struct udp_socket *u, struct udp_scratch *s, u64 name,
						u64 now)
{
	const struct datagram *g = &s->datagram;
	struct exchange *x = &s->request.exchange;
	struct request_key key = {.flow = name};
	enum dns kind = dns_kind(g->head, g->captured);
	u64 content = content_of(g);

	if (!place_request(u, &key, content, kind, dns_id(g->head), now))
		return 0;
	__builtin_memset(x, 0, EXCHANGE_SHORT);
	x->position = content;
	keep_request(sk, u, s, &key, now);
	return 0;
}

#endif
