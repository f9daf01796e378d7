/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* A socket of UDP: the state kept in its storage.
 *
 * A socket has a role: who sends first from a port that was not chosen by bind(), or from a connected socket, is the client.
 */
#ifndef WIRESPAN_UDP_SOCKET_H
#define WIRESPAN_UDP_SOCKET_H

#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "connection.h"
#include "counting.h"
#include "datagram.h"
#include "kernel.h"
#include "user_datagram.h"

#define RECENT_IDS 4

struct udp_socket {
	u32 noting; /* lock of the queue's writers, which are softirqs */
	u32 locked; /* of everything else */
	u8 mode; /* MODE_NEW, MODE_IGNORED, MODE_FORGOTTEN or MODE_TURNS */
	u8 role; /* 0: nothing has moved yet */
	u8 named; /* its port was chosen by bind() */
	u8 quic;
	u8 announced; /* enum client_kind, or 0 */
	u8 many_peers;
	u16 latest_port; /* whom it sent to last; its only peer unless many_peers */
	u64 latest_peer[2];
	u64 last; /* I/O */
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

/* By what the socket says of itself. */
inline_always int socket_is_selected(const struct sock *sk)
{
	return !select_ports || is_selected_port(local_port_of(sk)) ||
	       is_selected_port(__builtin_bswap16(sk->__sk_common.skc_dport));
}

inline_always int is_connected_datagram(const struct sock *sk)
{
	return sk->__sk_common.skc_state == TCP_ESTABLISHED;
}

inline_always u32 unread_datagrams(const struct sock *sk)
{
	return sk->sk_receive_queue.qlen + kernel_cast(udp_sock, sk)->reader_queue.qlen;
}

inline_always struct udp_socket *udp_socket_of(struct sock *sk)
{
	return bpf_sk_storage_get(&udp_sockets, sk, 0, 0);
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

/* The role of a socket whose first datagram moves so. A server chose its port, and waits. */
inline_always u8 role_of_datagram(const struct sock *sk, const struct udp_socket *u, u32 direction)
{
	return direction == DIRECTION_SENT || (is_connected_datagram(sk) && !u->named) ? ROLE_CLIENT : ROLE_SERVER;
}

/* State that the next datagram would make again; `patience`: ns without I/O. That a socket speaks QUIC is seen only once. */
inline_always int is_forgettable_udp(const struct sock *sk, const struct udp_socket *u, u64 now, u64 patience)
{
	return u->mode == MODE_TURNS && !u->quic && now > u->last && now - u->last >= patience &&
	       (!u->role || u->role == role_of_datagram(sk, u, DIRECTION_RECEIVED)) && !unread_datagrams(sk);
}

/* Under its locks: a hook that has found the state already sees that it is gone when it has the lock. */
inline_always void forget_udp(struct udp_socket *u, struct sock *sk)
{
	u->mode = MODE_FORGOTTEN;
	bpf_sk_storage_delete(&udp_sockets, sk);
}

#endif
