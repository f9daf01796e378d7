/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* A connection: the state kept in its socket's storage, and what is written down of it when it is taken up. */
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

#define CLIENTS 65536

/* tgid: of the process that connected; 0: not known. */
struct client {
	u32 tgid;
	u32 kind;
	u64 cgroup; /* of its socket */
	u64 time; /* UDP: when it was seen last */
};

enum client_kind {
	CLIENT_OBSERVED = 1,
	CLIENT_AGENT = 2,
	CLIENT_UNREADABLE = 3, /* UDP: observed, but what it sends is not known, so its exchanges have other names */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, CLIENTS);
	__type(key, struct client_key);
	__type(value, struct client);
} clients SEC(".maps");

inline_always int is_tcp(const struct sock *sk)
{
	int is = sk->sk_protocol == IPPROTO_TCP &&
		 (sk->__sk_common.skc_family == AF_INET || sk->__sk_common.skc_family == AF_INET6);

	opaque(is); /* else the verifier looks at all that follows once for each family */
	return is;
}

/* The TCP socket that a file of a task is; NULL if it is something else, or there is none. */
inline_always struct sock *tcp_socket_of(struct file *file)
{
	struct socket *socket = file ? bpf_sock_from_file(file) : NULL;
	struct sock *sk = socket ? socket->sk : NULL;

	return sk && is_tcp(sk) ? sk : NULL;
}

inline_always struct connection *connection_of(struct sock *sk)
{
	return bpf_sk_storage_get(&connections, sk, 0, 0);
}

/* A socket of the agent, or of its peer. */
inline_always int is_ignored(struct sock *sk)
{
	const struct connection *c = connection_of(sk);

	return c && c->turns.mode == MODE_IGNORED;
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

inline_always void copy_local_address(u8 *to, struct sock *sk)
{
	if (sk->__sk_common.skc_family == AF_INET6)
		copy_address(to, &sk->__sk_common.skc_v6_rcv_saddr);
	else
		mapped_address(to, sk->__sk_common.skc_rcv_saddr);
}

inline_always void copy_remote_address(u8 *to, struct sock *sk)
{
	if (sk->__sk_common.skc_family == AF_INET6)
		copy_address(to, &sk->__sk_common.skc_v6_daddr);
	else
		mapped_address(to, sk->__sk_common.skc_daddr);
}

inline_always int is_mapped(const u8 *address)
{
	return !((u64 *)address)[0] && ((u32 *)address)[2] == 0xffff0000;
}

inline_always void describe_connection(struct connection_info *info, struct sock *sk, u8 role)
{
	info->local_port = __builtin_bswap16(kernel_cast(inet_sock, sk)->inet_sport);
	info->remote_port = __builtin_bswap16(sk->__sk_common.skc_dport);
	info->netns = netns_of(sk);
	info->role = role;
	info->transport = IPPROTO_TCP;
	info->flags = 0;
	info->peer_tgid = 0;
	info->cookie = bpf_get_socket_cookie(sk);
	copy_local_address(info->local_address, sk);
	copy_remote_address(info->remote_address, sk);
	info->family = is_mapped(info->remote_address) ? AF_INET : AF_INET6;
}

inline_always struct client_key client_key_of(const u8 *address, u16 port, u32 netns)
{
	struct client_key key = {.port = port};

	__builtin_memcpy(key.address, address, sizeof(key.address));
	key.netns = address_is_loopback(key.address) ? netns : 0;
	return key;
}

/* The key of a socket as the client of its connection. */
inline_always struct client_key own_client_key(struct sock *sk)
{
	u16 port = __builtin_bswap16(kernel_cast(inet_sock, sk)->inet_sport); /* skc_num is 0 once it is closed */
	u8 address[16];

	copy_local_address(address, sk);
	return client_key_of(address, port, netns_of(sk));
}

inline_always int is_selected(const struct sock *sk, u8 role)
{
	u16 port;

	if (!select_ports)
		return 1;
	port = role == ROLE_CLIENT ? sk->__sk_common.skc_dport : kernel_cast(inet_sock, sk)->inet_sport;
	port = __builtin_bswap16(port);
	return watched_ports[port >> 6] >> (port & 63) & 1;
}

#endif
