/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* UDP: who the two ends of a datagram are, and whether the other one is on this machine and watched. */
#ifndef WIRESPAN_UDP_ENDS_H
#define WIRESPAN_UDP_ENDS_H

#include "adoption.h"
#include "udp_socket.h"

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
	info->netns = netns_of(sk);
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
	struct client client = {.tgid = bpf_get_current_pid_tgid() >> 32,
				.kind = kind,
				.cgroup = cgroup_of(sk),
				.time = bpf_ktime_get_ns()};
	struct client_key key = udp_client_key(address, local_port_of(sk), netns_of(sk));

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

#endif
