/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Connections that are older than the agent, in every network namespace: found by the files of all tasks. */
#ifndef WIRESPAN_EXISTING_H
#define WIRESPAN_EXISTING_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "adoption.h"

/* By how many jiffies the last request bytes are younger than the last response bytes. At 0 nobody knows which it is. */
inline_always s32 request_is_later(const struct sock *sk, u8 role)
{
	const struct tcp_sock *tp = kernel_cast(tcp_sock, sk);
	s32 received_later = tp->inet_conn.icsk_ack.lrcvtime - tp->lsndtime;

	return role == ROLE_SERVER ? received_later : -received_later;
}

inline_always int has_moved(const struct sock *sk, u8 role)
{
	const struct tcp_sock *tp = kernel_cast(tcp_sock, sk);

	return received_payload(sk, tp) || sent_payload(sk, tp, role);
}

/* A server's connection may have been taken up before its client's was met. */
inline_always void meet_client(struct sock *sk)
{
	struct connection *c = connection_of(sk);

	if (!c || c->turns.mode != MODE_TURNS || c->turns.by_hooks || !lock_if_free(&c->turns.locked))
		return;
	if (c->turns.mode == MODE_TURNS)
		know_client_late(&c->turns);
	unlock(&c->turns.locked);
}

/* In the middle of an exchange, if its request moved last. */
inline_always int is_under_way(struct sock *sk, u8 role)
{
	return has_moved(sk, role) && (unread_payload(sk, kernel_cast(tcp_sock, sk)) || request_is_later(sk, role) > 0);
}

/* One that no hook has told of yet. */
inline_always void join(struct sock *sk, u8 role, u32 tgid)
{
	if (role == ROLE_CLIENT)
		announce_client(sk, CLIENT_OBSERVED, tgid);
	else
		meet_client(sk);
	if (is_under_way(sk, role))
		adopt_as(sk, role, 0, 0, 0);
}

/* Of a group that is watched again. Those that have state have done something since. */
inline_always void come_back(struct sock *sk, u8 role)
{
	struct connection *c = connection_of(sk);

	if (c || !is_under_way(sk, role) || !adopt_as(sk, role, 0, 0, 0))
		return;
	c = connection_of(sk);
	if (!c || !lock_if_free(&c->turns.locked))
		return;
	if (c->turns.mode == MODE_TURNS && c->turns.phase == PHASE_IDLE)
		c->turns.phase = PHASE_JOINED;
	unlock(&c->turns.locked);
}

/* When all hooks are attached: one that has moved meanwhile is between two exchanges if its response moved last. */
inline_always void rejoin(struct sock *sk, u8 role)
{
	struct connection *c = connection_of(sk);
	u32 sequence[2];

	if (!c || c->turns.mode != MODE_TURNS || c->turns.phase != PHASE_JOINED || !lock_if_free(&c->turns.locked))
		return;
	next_sequences(sk, kernel_cast(tcp_sock, sk), sequence);
	if (c->turns.phase == PHASE_JOINED) {
		c->turns.send_started = 0; /* its hook may not have been attached when it returned */
		pass_over(&c->turns, DIRECTION_SENT, 0, sequence);
		if (!unread_payload(sk, kernel_cast(tcp_sock, sk)) && request_is_later(sk, role) < 0)
			c->turns.phase = PHASE_IDLE;
	}
	unlock(&c->turns.locked);
}

/* The connections that are older than the agent, its own among them. Run three times: when the hook of connections is
 * attached, so that clients of this machine and of the agent are known before anything else is; when all are; and after
 * `starting`. Writes the cookies of those that are selected. And once more for each group that is watched again.
 */
SEC("iter/task_file")
int join_existing(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct sock *sk = tcp_socket_of(ctx->file);
	u64 cookie;
	u8 role;

	if (!task || !sk)
		return 0;
	if (sk->__sk_common.skc_state == TCP_LISTEN)
		note_listener(sk);
	if (!is_connected(sk))
		return 0;
	role = role_of(sk);
	if ((u32)task->tgid == agent_tgid) {
		ignore(sk);
		if (role == ROLE_CLIENT)
			announce_client(sk, CLIENT_AGENT, agent_tgid);
		return 0;
	}
	if (!is_selected(sk, role) || (cgroup_returning && cgroup_of(sk) != cgroup_returning))
		return 0;
	if (bpf_preempt_disable)
		bpf_preempt_disable();
	if (cgroup_returning)
		come_back(sk, role);
	else if (starting)
		join(sk, role, task->tgid);
	else
		rejoin(sk, role);
	if (bpf_preempt_enable)
		bpf_preempt_enable();
	cookie = bpf_get_socket_cookie(sk);
	bpf_seq_write(ctx->meta->seq, &cookie, sizeof(cookie));
	return 0;
}

#endif
