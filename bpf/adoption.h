/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* A connection is taken up at the first I/O that a hook tells of, be it new or older than the agent: how far its streams
 * have moved is read off the socket, and so is which end it is. One that does nothing has no state, and one that has been
 * silent for long loses it again (forget()).
 *
 * Whether an old connection is in the middle of an exchange is not written anywhere. While the agent starts, whatever is
 * taken up counts as such; of the others the direction that moved last decides (existing.h).
 */
#ifndef WIRESPAN_ADOPTION_H
#define WIRESPAN_ADOPTION_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "attempts.h"
#include "cgroups.h"
#include "connection.h"
#include "lock.h"
#include "positions.h"
#include "unseen.h"

/* Cleared by the agent when all hooks are attached: before that, some of what moves is not seen. */
u8 starting = 1;

/* The agent's own thread group, as the kernel numbers it. */
u32 agent_tgid = 0;

/* Listening ports whose accepted sockets cannot be told from bound clients. */
struct listener {
	u32 netns;
	u16 port;
	u16 reserved;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct listener);
	__type(value, u8);
} listeners_without_backlog SEC(".maps");

inline_always struct listener listener_of(const struct sock *sk)
{
	return (struct listener){
		.netns = netns_of(sk),
		.port = kernel_cast(inet_sock, sk)->inet_sport,
	};
}

inline_always void note_listener(const struct sock *sk)
{
	struct listener key = listener_of(sk);
	u8 seen = 1;

	if (!sk->sk_max_ack_backlog)
		bpf_map_update_elem(&listeners_without_backlog, &key, &seen, BPF_ANY);
}

/* An accepted socket is a clone that keeps its listener's backlog, which is 0 at connecting ones. Where connect() chose the
 * port its bucket is marked so (inet_hash_connect()).
 */
inline_always u8 role_of(const struct sock *sk)
{
	const struct inet_bind_bucket *bucket;
	struct listener key;

	if (sk->sk_max_ack_backlog)
		return ROLE_SERVER;
	bucket = kernel_cast(tcp_sock, sk)->inet_conn.icsk_bind_hash;
	if (bucket && bucket->fastreuse < 0)
		return ROLE_CLIENT;
	key = listener_of(sk);
	return bpf_map_lookup_elem(&listeners_without_backlog, &key) ? ROLE_SERVER : ROLE_CLIENT;
}

/* tgid: 0 if it is not known now; it may have been before. */
inline_always void announce_client(struct sock *sk, u8 kind, u32 tgid)
{
	struct client_key key = own_client_key(sk);
	struct client client = {.tgid = tgid, .kind = kind, .cgroup = cgroup_of(sk)};

	bpf_map_update_elem(&clients, &key, &client, tgid || kind == CLIENT_AGENT ? BPF_ANY : BPF_NOEXIST);
}

inline_always const struct client *client_of(const struct connection_info *info)
{
	struct client_key key = client_key_of(info->remote_address, info->remote_port, info->netns);

	return bpf_map_lookup_elem(&clients, &key);
}

/* Which protocol an opaque connection has, kept when its state is given back: it cannot be seen from a later I/O. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, u8);
} opaque_connections SEC(".maps");

inline_always void recall_opaque(struct turns *t, struct sock *sk)
{
	const u8 *protocol = bpf_sk_storage_get(&opaque_connections, sk, 0, 0);

	if (protocol)
		t->protocol = *protocol;
}

/* Returns whether there was room, if any is needed. */
inline_always int remember_opaque(const struct turns *t, struct sock *sk)
{
	u8 *kept;

	if (!is_opaque(t))
		return 1;
	kept = bpf_sk_storage_get(&opaque_connections, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!kept)
		return 0;
	*kept = t->protocol;
	return 1;
}

inline_always void forget_arrivals(struct arrivals *a, u64 position)
{
	a->accounted_to = position;
	a->released_to = position;
	a->latest = 0;
	a->head_begin = 0;
	a->head_captured = 0;
	for (u32 i = 0; i < ARRIVALS; i++)
		a->entries[i].end = 0;
}

/* A socket may be connected a second time (connect() to AF_UNSPEC in between), so nothing is taken for zero. */
inline_always void reset_turns(struct turns *t, u64 sent, u64 received)
{
	t->phase = PHASE_IDLE;
	t->protocol = PROTOCOL_UNKNOWN;
	t->by_hooks = 0;
	t->settled = SETTLED_NOTHING;
	t->interim = 0;
	t->end_told = 0;
	t->head_unwanted = 0;
	t->send_started = 0;
	t->window_wait = 0;
	t->requester.tgid = 0;
	t->position[DIRECTION_SENT] = t->ahead_from[DIRECTION_SENT] = sent;
	t->position[DIRECTION_RECEIVED] = t->ahead_from[DIRECTION_RECEIVED] = received;
	forget_arrivals(&t->arrivals, received);
}

inline_always int client_is_unwatched(const struct client *client)
{
	return unlikely(cgroups_unwatched) && group_is_unwatched(client->cgroup);
}

/* Notes down who connected to a server, if that is known by now. Returns 0 if it is the agent. */
inline_always int know_client(struct connection_info *info)
{
	const struct client *client = client_of(info);

	if (!client)
		return 1;
	if (client->kind == CLIENT_AGENT)
		return 0;
	info->flags &= ~(FLAG_PEER_OBSERVED | FLAG_PEER_UNWATCHED);
	info->flags |= client_is_unwatched(client) ? FLAG_PEER_UNWATCHED : FLAG_PEER_OBSERVED;
	info->peer_tgid = client->tgid;
	return 1;
}

/* Under the lock. `sent`, `received`: of what the socket's counters say has moved, the bytes of the I/O under way. tgid: of
 * the process that does it; 0: not known.
 */
inline_always void take_up(struct turns *t, struct sock *sk, u8 role, u64 sent, u64 received, u32 tgid)
{
	struct tcp_sock *tp = kernel_cast(tcp_sock, sk);
	struct connection_info *info = &t->exchange.connection;
	struct streams now = read_streams(sk, tp, role);
	u8 mode;

	t->role = role;
	t->socket = (u64)sk;
	t->sequence[DIRECTION_SENT] = now.sequence[DIRECTION_SENT] - (u32)now.sent;
	t->sequence[DIRECTION_RECEIVED] = now.sequence[DIRECTION_RECEIVED] - (u32)now.received;
	reset_turns(t, now.sent - sent, now.received - received);
	t->last = bpf_ktime_get_ns();
	describe_connection(info, sk, role);
	info->sequence = t->sequence[request_direction(t)];
	if (t->position[DIRECTION_SENT] || t->position[DIRECTION_RECEIVED]) /* else it is another one of this socket */
		recall_opaque(t, sk);
	if (role == ROLE_CLIENT)
		announce_client(sk, CLIENT_OBSERVED, tgid);
	mode = role == ROLE_SERVER && !know_client(info) ? MODE_IGNORED : MODE_TURNS;
	if (starting)
		t->phase = PHASE_JOINED;
	barrier();
	t->mode = mode;
}

/* Data may move: in TCP_SYN_RECV, that of a SYN, and the answer to it. In TCP_CLOSE a client may yet read, but the socket has
 * given up its port.
 */
inline_always int is_connected(const struct sock *sk)
{
	u32 states = 1 << TCP_ESTABLISHED | 1 << TCP_SYN_RECV | 1 << TCP_FIN_WAIT1 | 1 << TCP_FIN_WAIT2 |
		     1 << TCP_CLOSE_WAIT | 1 << TCP_CLOSING | 1 << TCP_LAST_ACK;

	return states >> sk->__sk_common.skc_state & 1;
}

inline_always int is_subflow(const struct sock *sk)
{
	const struct tcp_sock *tp = kernel_cast(tcp_sock, sk);

	return bpf_core_field_exists(tp->is_mptcp) && tp->is_mptcp;
}

#define STORAGE_TRIES 4

/* It must not wait for memory, which may be short for a moment only. */
inline_always struct connection *created(struct sock *sk)
{
	struct connection *c = NULL;

	for (u32 tries = 0; tries < STORAGE_TRIES && !c; tries++)
		c = bpf_sk_storage_get(&connections, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	return c;
}

/* Returns whether the connection has state now. In a softirq nobody may wait for the lock, see lock.h. */
inline_always int adopt_as(struct sock *sk, u8 role, u64 sent, u64 received, int may_wait)
{
	struct connection *c;

	if (is_subflow(sk) || !is_selected(sk, role))
		return 0;
	c = created(sk);
	if (!c) {
		count(COUNT_CONNECTIONS_NO_STORAGE);
		return 0;
	}
	if (may_wait ? !lock(&c->turns.locked) : !lock_if_free(&c->turns.locked))
		return 0;
	if (c->turns.mode == MODE_NEW)
		take_up(&c->turns, sk, role, sent, received, may_wait ? bpf_get_current_pid_tgid() >> 32 : 0);
	unlock(&c->turns.locked);
	return 1;
}

/* No hook has told when the send that filled the SYN began: with connect(), or as it. */
inline_always void time_opening(struct sock *sk)
{
	const struct attempt *attempt = attempt_of(sk);
	struct connection *c = connection_of(sk);

	if (attempt && c)
		c->turns.send_started = attempt->started;
}

static __attribute__((noinline)) int adopt(struct sock *sk, u64 sent, u64 received, int may_wait)
{
	int opening = is_opening(sk, sent);

	if (is_passed_over(sk, sent || received))
		return 0;
	if (is_connected(sk) || opening) {
		if (!adopt_as(sk, role_of(sk), sent, received, may_wait))
			return 0;
		if (unlikely(opening))
			time_opening(sk);
		return 1;
	}
	if (may_wait && !select_ports)
		count(COUNT_IO_UNWATCHED);
	return 0;
}

/* The state of a socket's connection, taken up if there is none yet; NULL if it gets none. As for adopt(). */
inline_always struct connection *taken_up(struct sock *sk, u64 sent, u64 received, int may_wait)
{
	struct connection *c = connection_of(sk);

	if (unlikely(!c || c->turns.mode == MODE_NEW))
		c = adopt(sk, sent, received, may_wait) ? connection_of(sk) : NULL;
	return c;
}

/* ---- before the first I/O ---------------------------------------------------------------------------------- */

/* The agent's own socket, whose peer on this machine is left out too. */
inline_always void ignore(struct sock *sk)
{
	struct connection *c = bpf_sk_storage_get(&connections, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);

	if (c)
		c->turns.mode = MODE_IGNORED;
	else
		count(COUNT_CONNECTIONS_NO_STORAGE);
}

/* The client's send that filled the SYN has returned already: where the other stream begins is known only now. */
inline_always void know_answers(struct turns *t, const struct sock *sk)
{
	t->sequence[DIRECTION_RECEIVED] = kernel_cast(tcp_sock, sk)->copied_seq;
}

/* An exchange may have begun before its client was known on this machine: its request was in the SYN, or is older than the agent. */
inline_always void know_client_late(struct turns *t)
{
	if (!know_client(&t->exchange.connection))
		t->mode = MODE_IGNORED;
	t->exchange.flags |= t->exchange.connection.flags & FLAG_PEER_OBSERVED;
}

/* A connection is established; tgid: by this process, since `started`; 0: not known. */
static __attribute__((noinline)) void establish(struct sock *sk, u8 role, u32 tgid, u64 started)
{
	struct connection *c = connection_of(sk);
	int ignored = c && c->turns.mode == MODE_IGNORED;
	u64 sent = role == ROLE_CLIENT ? opening_payload(sk) : 0;

	if (!is_selected(sk, role))
		return;
	if (is_subflow(sk)) {
		count(COUNT_CONNECTIONS_MPTCP);
		return;
	}
	if (role == ROLE_CLIENT)
		announce_client(sk, ignored ? CLIENT_AGENT : CLIENT_OBSERVED, tgid);
	if (ignored || is_unwatched(sk))
		return;
	count(COUNT_CONNECTIONS);
	if (unlikely(c && c->turns.mode > MODE_FORGOTTEN)) {
		if (role == ROLE_CLIENT)
			know_answers(&c->turns, sk);
		else
			know_client_late(&c->turns);
	} else if (role_of(sk) != role || unlikely(sent)) {
		adopt_as(sk, role, sent, 0, 0);
		c = sent ? connection_of(sk) : NULL;
		if (c && !c->turns.send_started)
			c->turns.send_started = started;
	}
}

/* ---- after the last one ------------------------------------------------------------------------------------ */

/* State that can be read off the socket again. Segments are kept: what they are cannot be seen from a later I/O. */
inline_always int is_forgettable(const struct turns *t, struct sock *sk, u64 now)
{
	u32 sequence[2];

	if (t->mode != MODE_TURNS || t->phase != PHASE_IDLE || t->send_started || t->by_hooks || now < t->last ||
	    now - t->last < FORGET_AFTER * 1000000ull || sk->__sk_common.skc_state != TCP_ESTABLISHED)
		return 0;
	if (role_of(sk) != t->role || unread_payload(sk, kernel_cast(tcp_sock, sk)))
		return 0;
	next_sequences(sk, kernel_cast(tcp_sock, sk), sequence);
	return !moved_unseen(t, DIRECTION_SENT, sequence[DIRECTION_SENT]) &&
	       !moved_unseen(t, DIRECTION_RECEIVED, sequence[DIRECTION_RECEIVED]);
}

/* Under the lock: a hook that has found the state already sees that it is gone when it has the lock. */
inline_always void forget(struct turns *t, struct sock *sk)
{
	if (!remember_opaque(t, sk))
		return;
	t->mode = MODE_FORGOTTEN;
	bpf_sk_storage_delete(&connections, sk);
}

#endif
