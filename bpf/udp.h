/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* UDP in the kernel: what the hooks see of datagrams, and the requests that wait. What belongs together is decided in
 * datagram.h.
 *
 * A socket has a role: who sends first from a port that was not chosen by bind(), or from a connected socket, is the client.
 * The kernel has no hook where a send of UDP begins, so sends have the time of their return, and say so.
 */
#ifndef WIRESPAN_UDP_H
#define WIRESPAN_UDP_H

#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "adoption.h"
#include "datagram.h"
#include "lock.h"
#include "output.h"
#include "packet_payload.h"
#include "user_datagram.h"

/* Set before load. */
const volatile u64 udp_timeout = 5000000000;

#define RECENT_IDS 4

struct udp_socket {
	u32 noting; /* lock of the queue's writers, which are softirqs */
	u32 locked; /* of everything else */
	u8 mode; /* MODE_NEW, MODE_IGNORED or MODE_TURNS */
	u8 role; /* 0: nothing has moved yet */
	u8 named; /* its port was chosen by bind() */
	u8 quic;
	u8 announced;
	u8 many_peers;
	u16 only_port; /* unless many_peers: of the only peer, its address below */
	u64 only_peer[2];
	u64 local[2]; /* where the last datagram was received */
	u64 cookie;
	u32 recent_ids[RECENT_IDS]; /* of DNS queries, the latest ones */
	u32 queries;
	u32 reserved;
	struct many sending;
	struct many receiving;
	struct datagrams queue;
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct udp_socket);
} udp_sockets SEC(".maps");

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

inline_always int is_udp(const struct sock *sk)
{
	return sk->sk_protocol == IPPROTO_UDP &&
	       (sk->__sk_common.skc_family == AF_INET || sk->__sk_common.skc_family == AF_INET6);
}

inline_always u16 local_port_of(const struct sock *sk)
{
	return __builtin_bswap16(kernel_cast(inet_sock, sk)->inet_sport);
}

inline_always int is_selected_port(u16 port)
{
	return !select_ports || watched_ports[port >> 6] >> (port & 63) & 1;
}

inline_always u32 unread_datagrams(const struct sock *sk)
{
	return sk->sk_receive_queue.qlen + kernel_cast(udp_sock, sk)->reader_queue.qlen;
}

/* unread: datagrams in its queue that nobody will note down. */
inline_always struct udp_socket *new_udp_socket(struct sock *sk, u32 unread)
{
	struct udp_socket *u = bpf_sk_storage_get(&udp_sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);

	if (!u) {
		count(COUNT_CONNECTIONS_NO_STORAGE);
		return NULL;
	}
	if (u->mode == MODE_NEW) {
		u->cookie = bpf_get_socket_cookie(sk);
		u->named = !!(BPF_CORE_READ_BITFIELD(sk, sk_userlocks) & SOCK_BINDPORT_LOCK);
		u->queue.arrived = unread;
		barrier();
		u->mode = MODE_TURNS;
	}
	return u;
}

/* ---- arrivals ------------------------------------------------------------------------------------------------ */

inline_always void describe_addresses(struct datagram *g, const struct sk_buff *skb)
{
	u64 network = (u64)skb->head + skb->network_header, transport = (u64)skb->head + skb->transport_header;

	if ((kernel_words(network)->word[0] & 0xf0) == 0x40) {
		const struct iphdr *ip = kernel_cast(iphdr, network);

		mapped_address((u8 *)g->peer, ip->saddr);
		mapped_address((u8 *)g->local, ip->daddr);
	} else {
		const struct ipv6hdr *ip = kernel_cast(ipv6hdr, network);

		copy_address((u8 *)g->peer, &ip->saddr);
		copy_address((u8 *)g->local, &ip->daddr);
	}
	g->peer_port = __builtin_bswap16(kernel_cast(udphdr, transport)->source);
}

inline_always void clear_head(struct datagram *g)
{
	__builtin_memset(g->head, 0, sizeof(g->head));
	g->captured = 0;
}

/* A reader may take the packet meanwhile, and free it: then it is unlinked, and what was read of it is not to be used. */
inline_always void note_packet(struct datagrams *d, u64 packet, u64 now)
{
	const struct sk_buff *skb = kernel_cast(sk_buff, packet);
	struct datagram *entry = next_arrival(d);
	u32 have, wanted;
	u64 address;

	d->newest = packet;
	if (unlikely(!entry)) {
		count(COUNT_DATAGRAMS_QUEUE_FULL);
		return;
	}
	entry->number = 0;
	barrier();
	entry->time = now;
	entry->size = skb->len;
	entry->looped = skb->skb_iif == LOOPBACK_IFINDEX;
	describe_addresses(entry, skb);
	clear_head(entry);
	wanted = skb->len < DATAGRAM_HEAD ? skb->len : DATAGRAM_HEAD;
	address = payload_at(skb, 0, &have);
	if (read_payload && address && have >= wanted) {
		copy_words(entry->head, address, wanted);
		entry->captured = wanted;
	}
	barrier();
	if (likely(kernel_cast(sk_buff, packet)->next))
		entry->number = d->arrived;
}

#define PACKETS_AT_ONCE 4

/* The packets that were put into the queue since the last notice, the newest first. The last one is not known yet, whatever
 * its address: memory is used again.
 */
inline_always u32 new_packets(struct sock *sk, const struct datagrams *d, u64 *packets)
{
	u64 head = (u64)sk + bpf_core_field_offset(struct sock, sk_receive_queue);
	u64 readers_head = (u64)sk + bpf_core_field_offset(struct udp_sock, reader_queue);
	u64 packet = (u64)sk->sk_receive_queue.prev;
	u32 found = 0;

	if (packet == head) /* the reader has moved all to a queue of its own, and may do so while we look */
		packet = (u64)kernel_cast(udp_sock, sk)->reader_queue.prev;
#pragma unroll
	for (u32 i = 0; i < PACKETS_AT_ONCE; i++) {
		if (!packet || packet == head || packet == readers_head || (i && packet == d->newest))
			break;
		packets[i] = packet;
		found++;
		packet = (u64)kernel_cast(sk_buff, packet)->prev;
	}
	return found;
}

/* Whether the newest entry is about this packet, and not about one that had its memory before. */
inline_always int is_noted(const struct datagrams *d, u64 packet)
{
	const struct sk_buff *skb = kernel_cast(sk_buff, packet);
	u32 index = d->arrived % DATAGRAMS_QUEUED, have;
	const struct datagram *entry;
	u64 transport, payload;

	if (likely(packet != d->newest || (s64)(d->arrived - d->taken) <= 0))
		return 0;
	opaque(index);
	entry = &d->entries[index & (DATAGRAMS_QUEUED - 1)];
	transport = (u64)skb->head + skb->transport_header;
	if (entry->number != d->arrived || entry->size != skb->len ||
	    entry->peer_port != __builtin_bswap16(kernel_cast(udphdr, transport)->source))
		return 0;
	payload = payload_at(skb, 0, &have);
	return entry->captured < 8 || !payload || *(u64 *)entry->head == kernel_words(payload)->word[0];
}

inline_always void note_packets(struct sock *sk, struct udp_socket *u, u32 limit)
{
	struct datagrams *d = &u->queue;
	u64 packets[PACKETS_AT_ONCE] = {}, now;
	u32 found, unread;

	if (unlikely(d->ahead)) { /* noted down with the one before */
		d->ahead--;
		return;
	}
	now = bpf_ktime_get_ns();
	unread = unread_datagrams(sk);
	found = new_packets(sk, d, packets);
	if (found > limit)
		found = limit;
	balance(d, unread > found ? unread - found : 0, now);
	if (found && is_noted(d, packets[0]))
		return;
	if (unlikely(!found)) { /* read already */
		skip_arrival(d);
		return;
	}
	d->ahead = found - 1;
#pragma unroll
	for (u32 i = PACKETS_AT_ONCE; i-- > 0;)
		if (i < found)
			note_packet(d, packets[i], now);
}

/* The port that the last datagram in the queue was sent from; anything if there is none. */
inline_always u16 latest_source(const struct sock *sk)
{
	const struct sk_buff *skb = kernel_cast(sk_buff, sk->sk_receive_queue.prev);

	return __builtin_bswap16(kernel_cast(udphdr, (u64)skb->head + skb->transport_header)->source);
}

/* Nothing has moved yet that a hook has told of: an unconnected client may get its answer before the hook of its send. */
inline_always int may_be_selected(const struct sock *sk)
{
	return !select_ports || is_selected_port(local_port_of(sk)) ||
	       is_selected_port(__builtin_bswap16(sk->__sk_common.skc_dport)) || is_selected_port(latest_source(sk));
}

/* A datagram is in the socket's queue. Runs in a softirq, or in whoever sent it. */
static __attribute__((noinline)) int note_datagram(struct sock *sk)
{
	struct udp_socket *u = bpf_sk_storage_get(&udp_sockets, sk, 0, 0);
	u32 unread, limit = PACKETS_AT_ONCE;

	if (!u) {
		if (!may_be_selected(sk))
			return 0;
		unread = unread_datagrams(sk);
		u = new_udp_socket(sk, unread ? unread - 1 : 0);
		limit = 1;
	}
	if (!u || u->mode == MODE_IGNORED)
		return 0;
	if (lock(&u->noting)) {
		note_packets(sk, u, limit);
		unlock(&u->noting);
	}
	return 0;
}

/* ---- requests and responses ---------------------------------------------------------------------------------- */

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
	info->flags = role == ROLE_SERVER && g->looped ? FLAG_PEER_OBSERVED : 0;
}

inline_always struct client_key udp_client_key(const u8 *address, u16 port, u32 netns)
{
	struct client_key key = client_key_of(address, port, netns);

	key.reserved = IPPROTO_UDP;
	return key;
}

/* Who receives from this socket on this machine will know that it is watched, or the agent's. */
inline_always void announce_datagrams(struct udp_socket *u, struct sock *sk, const u8 *address, u8 kind)
{
	struct client client = {.tgid = bpf_get_current_pid_tgid() >> 32, .kind = kind};
	struct client_key key;

	if (u->announced || is_unspecified(address))
		return;
	key = udp_client_key(address, local_port_of(sk), sk->__sk_common.skc_net.net->ns.inum);
	bpf_map_update_elem(&clients, &key, &client, BPF_ANY);
	u->announced = 1;
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

	count(COUNT_OBSERVED);
	if (unlikely(select_processes) && bpf_map_lookup_elem(&left_out, &x->process)) {
		count(COUNT_EXCLUDED);
		return;
	}
	if (unlikely(sampling_threshold) && trace_id_low56(x) < sampling_threshold) {
		count(COUNT_SAMPLED_OUT);
		return;
	}
	if (unlikely(select_processes)) {
		name_requester(r);
		output_row(x, r, sizeof(r->requester));
	} else {
		output_row(x, x, 0);
	}
}

/* More of a request than DATAGRAM_HEAD, out of its process' memory: if that begins as the packet did. */
inline_always void extend_head(struct sock *sk, struct udp_socket *u, struct udp_scratch *s, u32 direction)
{
	struct exchange *x = &s->request.exchange;
	const struct datagram *g = &s->datagram;
	u32 have;

	if (!s->has_user || !read_payload)
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
		if (waiting)
			repeat_request(waiting, now);
		return 0;
	default:
		key->number = flow->next - 1;
		return 1;
	}
}

inline_always void on_request(struct sock *sk, struct udp_socket *u, struct udp_scratch *s, u64 name, u32 direction,
			      u64 now)
{
	struct datagram *g = &s->datagram;
	struct request *r = &s->request;
	struct exchange *x = &r->exchange;
	struct request_key key = {.flow = name};
	u8 role = direction == DIRECTION_SENT ? ROLE_CLIENT : ROLE_SERVER;
	enum dns kind = dns_kind(g->head, g->captured);
	u64 content = content_hash(id_key[0], id_key[1], g);

	if (!place_request(u, &key, content, kind, dns_id(g->head), now))
		return;
	__builtin_memset(x, 0, EXCHANGE_SHORT);
	r->claimed = 0;
	r->anonymous = !g->peer[1];
	describe_socket(&x->connection, sk, g, role);
	x->position = content;
	if (!r->anonymous)
		name_peer(x, name, g->peer, g->peer_port);
	describe_process(&x->process);
	if (role == ROLE_CLIENT)
		announce_datagrams(u, sk, x->connection.local_address, CLIENT_OBSERVED);
	if (unlikely(select_processes) && role == ROLE_CLIENT)
		name_requester(r);
	x->arrived = role == ROLE_SERVER ? g->time : 0;
	x->request_start = x->request_end = now;
	x->request_size = g->size;
	x->flags = x->connection.flags | (role == ROLE_CLIENT ? FLAG_SEND_START_UNKNOWN : 0);
	x->request_captured = g->captured;
	__builtin_memcpy(x->request_head, g->head, DATAGRAM_HEAD);
	if (g->size > DATAGRAM_HEAD && (kind == DNS_QUERY || is_worth_more(g->head[0], REQUEST_HEAD)))
		extend_head(sk, u, s, direction);
	if (bpf_map_update_elem(&requests, &key, r, BPF_ANY))
		count(COUNT_DATAGRAMS_REQUESTS_FULL);
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

/* The server's end: whether the client is watched too, or is the agent. */
inline_always const struct client *client_of_datagram(const struct exchange *x)
{
	const struct connection_info *c = &x->connection;
	struct client_key key = udp_client_key(c->remote_address, c->remote_port, c->netns);

	return bpf_map_lookup_elem(&clients, &key);
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
		announce_datagrams(u, sk, x->connection.local_address, CLIENT_OBSERVED);
		output_datagrams(r);
	} else {
		if (r->anonymous)
			name_peer(x, name, g->peer, g->peer_port);
		client = client_of_datagram(x);
		x->flags |= FLAG_SEND_START_UNKNOWN | (client ? FLAG_PEER_OBSERVED : 0);
		x->connection.peer_tgid = client ? client->tgid : 0;
		if (!client || client->kind != CLIENT_AGENT)
			output_datagrams(r);
	}
	bpf_map_delete_elem(&requests, key);
}

/* Returns whether the datagram is a response to a request that waits. */
inline_always int on_response(struct sock *sk, struct udp_socket *u, struct udp_scratch *s, u64 name, u8 role, u64 now)
{
	const u64 nobody[2] = {};
	struct request_key key = {};
	struct request *r = answered_request(&s->datagram, name, &key);

	if (!r && role == ROLE_SERVER)
		r = answered_request(&s->datagram, flow_name(u->cookie, role, nobody, 0), &key);
	if (!r)
		return 0;
	answer_request(sk, u, s, name, &key, r, now);
	return 1;
}

inline_always void note_peer(struct udp_socket *u, const struct datagram *g)
{
	if (u->only_port == g->peer_port && u->only_peer[0] == g->peer[0] && u->only_peer[1] == g->peer[1])
		return;
	if (u->only_port)
		u->many_peers = 1;
	u->only_port = g->peer_port;
	u->only_peer[0] = g->peer[0];
	u->only_peer[1] = g->peer[1];
}

inline_always int is_connected_datagram(const struct sock *sk)
{
	return sk->__sk_common.skc_state == TCP_ESTABLISHED;
}

/* A datagram was sent or received. Under the socket's lock. */
inline_always void on_datagram(struct sock *sk, struct udp_socket *u, struct udp_scratch *s, u32 direction, u64 now)
{
	const struct datagram *g = &s->datagram;
	u8 role;
	u64 name;

	if (is_quic(g->head, g->captured, g->size))
		u->quic = 1;
	if (u->quic) {
		count(COUNT_DATAGRAMS_QUIC);
		return;
	}
	if (!u->role)
		u->role = direction == DIRECTION_SENT || (is_connected_datagram(sk) && !u->named) ? ROLE_CLIENT
												  : ROLE_SERVER;
	role = u->role;
	if (!is_selected_port(role == ROLE_CLIENT ? g->peer_port : local_port_of(sk)))
		return;
	name = flow_name(u->cookie, role, g->peer, g->peer_port);
	if (direction == (role == ROLE_CLIENT ? DIRECTION_SENT : DIRECTION_RECEIVED))
		on_request(sk, u, s, name, direction, now);
	else if (!on_response(sk, u, s, name, role, now))
		count(COUNT_MESSAGES_PUSHED);
}

/* ---- hooks --------------------------------------------------------------------------------------------------- */

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
	announce_datagrams(u, sk, address, CLIENT_AGENT);
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
	if (read_payload && s->has_user)
		g->captured = gather(&s->user.buffer, g->head, DATAGRAM_HEAD, size);
	else if (read_payload)
		count(COUNT_PAYLOAD_UNAVAILABLE);
	return 1;
}

static __attribute__((noinline)) int datagram_sent(struct sock *sk, int size)
{
	struct udp_socket *u = bpf_sk_storage_get(&udp_sockets, sk, 0, 0);
	struct udp_scratch *s = udp_scratch_of_cpu();
	u64 now = bpf_ktime_get_ns();

	if (!u)
		u = new_udp_socket(sk, unread_datagrams(sk));
	if (!u || !s || u->mode == MODE_IGNORED)
		return 0;
	if (unlikely(is_agent())) {
		ignore_datagrams(u, sk);
		return 0;
	}
	if (!lock(&u->locked))
		return 0;
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

/* What was received, and who sent it. A server's request may do without: its response says who it was. */
inline_always int describe_received(struct sock *sk, struct udp_socket *u, struct udp_scratch *s, u32 size,
				    int discarded)
{
	int readable = read_payload && !discarded;
	struct datagram *g = &s->datagram;

	s->has_user = readable && u->role != ROLE_CLIENT ? find_user_datagram(file_of(sk), &u->receiving, &s->user) : 0;
	if (take_arrival(&u->queue, size, g)) {
		u->local[0] = g->local[0];
		u->local[1] = g->local[1];
		if (unlikely(readable && size && !g->captured) && /* its packet is in pieces */
		    (s->has_user || find_user_datagram(file_of(sk), &u->receiving, &s->user)))
			g->captured = gather(&s->user.buffer, g->head, DATAGRAM_HEAD, size);
		return 1;
	}
	__builtin_memset(g, 0, sizeof(*g));
	g->size = size;
	if (readable && (s->has_user || find_user_datagram(file_of(sk), &u->receiving, &s->user)))
		g->captured = gather(&s->user.buffer, g->head, DATAGRAM_HEAD, size);
	g->local[0] = u->local[0];
	g->local[1] = u->local[1];
	if (is_connected_datagram(sk)) {
		connected_peer(sk, g);
	} else if (u->role == ROLE_CLIENT) {
		if (u->many_peers)
			return 0;
		g->peer_port = u->only_port;
		g->peer[0] = u->only_peer[0];
		g->peer[1] = u->only_peer[1];
	}
	return 1;
}

/* discarded: with MSG_TRUNC, `size` says more than the application's buffer holds. */
static __attribute__((noinline)) int datagram_received(struct sock *sk, int size, int discarded)
{
	struct udp_socket *u = bpf_sk_storage_get(&udp_sockets, sk, 0, 0);
	struct udp_scratch *s;
	u64 now;

	if (!u || u->mode == MODE_IGNORED)
		return 0;
	s = udp_scratch_of_cpu();
	if (!s)
		return 0;
	if (unlikely(is_agent())) {
		ignore_datagrams(u, sk);
		return 0;
	}
	now = bpf_ktime_get_ns();
	if (!lock(&u->locked))
		return 0;
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

/* ---- timeouts ------------------------------------------------------------------------------------------------ */

static long expire_request(struct bpf_map *map, struct request_key *key, struct request *r, u64 *now)
{
	struct exchange *x = &r->exchange;
	u64 until = x->request_end + udp_timeout, name = key->flow;
	const struct flow *flow;

	if (*now < until)
		return 0;
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
