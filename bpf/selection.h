/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Selection by process: cgroup, process id, executable, service.
 *
 * What a process is, user space finds out once for each program image, and says here which are left out: their exchanges
 * end before the ring. That is decided where an exchange goes up, by the process that read or wrote its request, because
 * sockets are shared (servers that fork) and outlive exec.
 *
 * A server's span may name its client's as parent only if that is emitted, so with each record goes the process that sends
 * the requests, as its own end has noted it down.
 */
#ifndef WIRESPAN_SELECTION_H
#define WIRESPAN_SELECTION_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "connection.h"

/* Set before load. Without it nothing of this file is left of the programs. */
const volatile u8 select_processes = 0;

/* A program image: how struct process_info begins. */
struct image {
	u64 start_time;
	u32 tgid;
	u32 exec_id;
};

_Static_assert(__builtin_offsetof(struct process_info, comm) == sizeof(struct image), "an image is a key in place");

/* Bounded by user space, which knows which image was met last. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct image);
	__type(value, u8);
} left_out SEC(".maps");

/* Who sends the requests, by the client's end. Never deleted: a new connection of that end writes its own. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1); /* set before load */
	__type(key, struct client_key);
	__type(value, struct process_info);
} requesters SEC(".maps");

/* Looking up costs 50 to 100 ns, and what is found seldom changes, so connections keep it until one of these grows: by user
 * space when the map above did change, and here when the requests of a connection come from another process than before.
 */
u32 verdicts_changed = 1;
u32 requesters_changed = 1;

inline_always int image_is_left_out(const struct process_info *process)
{
	return bpf_map_lookup_elem(&left_out, process) != NULL;
}

inline_always int is_left_out(struct turns *t, const struct process_info *process)
{
	struct selected *s = &t->selected;
	u32 now = verdicts_changed;

	if (s->decided_at != now || s->tgid != process->tgid || s->exec_id != process->exec_id ||
	    s->start_time != process->start_time) {
		s->left_out = image_is_left_out(process);
		s->start_time = process->start_time;
		s->tgid = process->tgid;
		s->exec_id = process->exec_id;
		s->decided_at = now;
	}
	return s->left_out;
}

/* At the client's end: `process` has sent a request, or a part of one. */
inline_always void note_requester(struct turns *t, const struct process_info *process)
{
	const struct connection_info *connection = &t->exchange.connection;
	struct client_key key;

	if (t->requester.tgid == process->tgid && t->requester.exec_id == process->exec_id &&
	    t->requester.start_time == process->start_time)
		return;
	if (t->requester.tgid)
		__sync_fetch_and_add(&requesters_changed, 1);
	t->requester = *process;
	key = client_key_of(connection->local_address, connection->local_port, connection->netns);
	bpf_map_update_elem(&requesters, &key, &t->requester, BPF_ANY);
}

/* At the server's end: who has sent the request, in t->requester. tgid 0: not known. */
inline_always void find_requester(struct turns *t)
{
	const struct connection_info *connection = &t->exchange.connection;
	const struct process_info *found;
	struct client_key key;
	u32 now = requesters_changed;

	if (t->role != ROLE_SERVER || !(connection->flags & FLAG_PEER_OBSERVED))
		return;
	if (t->requester.tgid && t->selected.found_at == now)
		return;
	key = client_key_of(connection->remote_address, connection->remote_port, connection->netns);
	found = bpf_map_lookup_elem(&requesters, &key);
	if (found)
		t->requester = *found;
	else
		t->requester.tgid = 0;
	t->selected.found_at = now;
}

/* Bytes were sent: at the client's end by whom, at the server's end to whom. That is looked up when the response begins: the
 * client's send has begun by then, and its next request is still to come.
 */
inline_always void follow_requester(struct turns *t)
{
	if (t->role == ROLE_CLIENT)
		note_requester(t, &t->exchange.process);
	else
		find_requester(t);
}

#endif
