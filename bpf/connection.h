/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* A connection: the state kept in its socket's storage, and what is written down of it when it is established. */
#ifndef WIRESPAN_CONNECTION_H
#define WIRESPAN_CONNECTION_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "counting.h"
#include "exchange.h"
#include "kernel.h"
#include "siphash.h"

/* Set before load. */
const volatile u8 select_ports = 0; /* only server ports whose bit is set */
const volatile u64 watched_ports[1024] = {};

struct connection {
	struct turns turns;
	u8 slack[REQUEST_HEAD]; /* the verifier adds up the largest offset of a head and the space copy_user_head() asks */
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct connection);
} connections SEC(".maps");

/* Client sockets of this machine by their local end, so that the accepting end knows whether its peer is seen too,
 * or is the agent. Loopback addresses are told apart by network namespace.
 */
struct client_key {
	u64 address[2];
	u32 netns;
	u16 port;
	u16 reserved;
};

enum client_kind {
	CLIENT_OBSERVED = 1,
	CLIENT_AGENT = 2,
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct client_key);
	__type(value, u8);
} clients SEC(".maps");

inline_always struct connection *connection_of(struct sock *sk)
{
	return bpf_sk_storage_get(&connections, sk, 0, 0);
}

inline_always void mapped_address(u8 *to, u32 v4)
{
	((u64 *)to)[0] = 0;
	((u32 *)to)[2] = 0xffff0000; /* ::ffff:a.b.c.d, as it lies in memory on a little-endian machine */
	((u32 *)to)[3] = v4;
}

inline_always void copy_address(u8 *to, const struct in6_addr *from)
{
	((u32 *)to)[0] = from->in6_u.u6_addr32[0];
	((u32 *)to)[1] = from->in6_u.u6_addr32[1];
	((u32 *)to)[2] = from->in6_u.u6_addr32[2];
	((u32 *)to)[3] = from->in6_u.u6_addr32[3];
}

inline_always int is_mapped(const u8 *address)
{
	return !((u64 *)address)[0] && ((u32 *)address)[2] == 0xffff0000;
}

inline_always void describe_connection(struct connection_info *info, struct sock *sk, u8 role)
{
	info->local_port = sk->__sk_common.skc_num;
	info->remote_port = __builtin_bswap16(sk->__sk_common.skc_dport);
	info->netns = sk->__sk_common.skc_net.net->ns.inum;
	info->role = role;
	info->flags = 0;
	info->cookie = bpf_get_socket_cookie(sk);
	if (sk->__sk_common.skc_family == AF_INET6) {
		copy_address(info->local_address, &sk->__sk_common.skc_v6_rcv_saddr);
		copy_address(info->remote_address, &sk->__sk_common.skc_v6_daddr);
	} else {
		mapped_address(info->local_address, sk->__sk_common.skc_rcv_saddr);
		mapped_address(info->remote_address, sk->__sk_common.skc_daddr);
	}
	info->family = is_mapped(info->remote_address) ? AF_INET : AF_INET6;
}

inline_always void client_key_of(struct client_key *key, const struct connection_info *info, int local)
{
	__builtin_memcpy(key->address, local ? info->local_address : info->remote_address, sizeof(key->address));
	key->port = local ? info->local_port : info->remote_port;
	key->netns = address_is_loopback(key->address) ? info->netns : 0;
	key->reserved = 0;
}

inline_always int is_selected(const struct sock *sk, u8 role)
{
	u16 port = sk->__sk_common.skc_num;

	if (!select_ports)
		return 1;
	if (role == ROLE_CLIENT)
		port = __builtin_bswap16(sk->__sk_common.skc_dport);
	return watched_ports[port >> 6] >> (port & 63) & 1;
}

/* Nothing has moved yet. A socket may be connected a second time (connect() to AF_UNSPEC in between). */
inline_always void reset_turns(struct turns *t)
{
	if (t->mode != MODE_IGNORED)
		t->mode = MODE_TURNS;
	t->phase = PHASE_IDLE;
	t->by_hooks = 0;
	t->settled = 0;
	t->end_told = 0;
	t->head_unwanted = 0;
	t->send_started = 0;
	t->requester.tgid = 0;
	for (u32 direction = 0; direction < 2; direction++) {
		t->position[direction] = 0;
		t->ahead_from[direction] = 0;
	}
	t->arrivals.accounted_to = 0;
	t->arrivals.released_to = 0;
	t->arrivals.latest = 0;
	t->arrivals.head_begin = 0;
	t->arrivals.head_captured = 0;
	for (u32 i = 0; i < ARRIVALS; i++)
		t->arrivals.entries[i].end = 0;
}

inline_always void watch(struct sock *sk, u8 role)
{
	struct tcp_sock *tp = kernel_cast(tcp_sock, sk);
	struct connection_info *info;
	struct client_key key = {};
	struct connection *c;
	struct turns *t;
	u8 kind = CLIENT_OBSERVED, *peer = NULL;

	c = bpf_sk_storage_get(&connections, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!c) {
		count(COUNT_CONNECTIONS_NO_STORAGE);
		return;
	}
	t = &c->turns;
	reset_turns(t);
	t->role = role;
	info = &t->exchange.connection;
	describe_connection(info, sk, role);
	client_key_of(&key, info, role == ROLE_CLIENT);
	if (role == ROLE_CLIENT) {
		/* bytes_acked counts the SYN at this end */
		t->sequence[DIRECTION_SENT] = tp->snd_una - (u32)tp->bytes_acked + 1;
		if (t->mode == MODE_IGNORED)
			kind = CLIENT_AGENT;
		bpf_map_update_elem(&clients, &key, &kind, BPF_ANY);
	} else {
		t->sequence[DIRECTION_SENT] = tp->write_seq;
		peer = bpf_map_lookup_elem(&clients, &key);
		if (peer && *peer == CLIENT_AGENT)
			t->mode = MODE_IGNORED;
		else if (peer)
			info->flags |= FLAG_PEER_OBSERVED;
	}
	t->sequence[DIRECTION_RECEIVED] = tp->rcv_nxt - (u32)tp->bytes_received;
	info->sequence = t->sequence[request_direction(t)];
	if (t->mode != MODE_IGNORED)
		count(COUNT_CONNECTIONS);
}

#endif
