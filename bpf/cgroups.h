/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Control groups: what each costs the agent, counted while user space wants to know, and those that it does not watch any more
 * because it takes more CPU than it may. A socket is of the group of who made it, an accepted one of its listener's.
 *
 * finish_quiet() gives back the state of an unwatched group's connections, and none is taken up, so that their hooks find nothing to
 * do; the others pay nothing for it. When it is watched again they are taken up anew.
 */
#ifndef WIRESPAN_CGROUPS_H
#define WIRESPAN_CGROUPS_H

#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "kernel.h"
#include "record.h"

enum cgroup_cost {
	COST_RECORD, /* handed up: an exchange */
	COST_SEGMENT, /* an I/O in segment mode */
	COST_VISIT, /* looked at: a connection that has state, at each look for quiet ones */
	COSTS,
};

enum cgroup_cost cgroup_cost_names;

/* process: one of it. */
struct cgroup_use {
	struct process_info process;
	u64 costs[COSTS];
	u64 passed_over; /* I/Os while it was not watched */
	u64 unwatched;
};

#define CGROUPS 4096

/* By the group's id in the hierarchy of cgroup v2. What finds no room costs too little to matter. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, CGROUPS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, u64);
	__type(value, struct cgroup_use);
} cgroup_uses SEC(".maps");

u8 cgroups_counted = 0;
u32 cgroups_unwatched = 0; /* how many */
u64 cgroup_returning = 0; /* watched again just now */

/* 0: it has none. */
inline_always u64 cgroup_of(const struct sock *sk)
{
	if (!bpf_core_field_exists(sk->sk_cgrp_data.cgroup))
		return 0;
	return untrusted(sock, sk)->sk_cgrp_data.cgroup->kn->id;
}

static __attribute__((noinline)) int group_is_unwatched(u64 cgroup)
{
	const struct cgroup_use *use = bpf_map_lookup_elem(&cgroup_uses, &cgroup);

	return use && use->unwatched;
}

inline_always int is_unwatched(const struct sock *sk)
{
	return unlikely(cgroups_unwatched) && group_is_unwatched(cgroup_of(sk));
}

static __attribute__((noinline)) int pass_over_group(u64 cgroup, int is_io)
{
	struct cgroup_use *use = bpf_map_lookup_elem(&cgroup_uses, &cgroup);

	if (!use || !use->unwatched)
		return 0;
	if (is_io)
		__sync_fetch_and_add(&use->passed_over, 1);
	return 1;
}

/* The same, and counts an I/O for which there is no state. */
inline_always int is_passed_over(const struct sock *sk, int is_io)
{
	return unlikely(cgroups_unwatched) && pass_over_group(cgroup_of(sk), is_io);
}

/* A group's first use: the stack has no room for one. */
const volatile struct cgroup_use no_use = {};

static __attribute__((noinline)) int add_cost(u64 cgroup, const struct process_info *process, enum cgroup_cost which)
{
	struct cgroup_use *use = bpf_map_lookup_elem(&cgroup_uses, &cgroup);

	if (!use) {
		bpf_map_update_elem(&cgroup_uses, &cgroup, (const void *)&no_use, BPF_NOEXIST);
		use = bpf_map_lookup_elem(&cgroup_uses, &cgroup);
		if (use)
			use->process = *process;
	}
	if (use && which < COSTS)
		__sync_fetch_and_add(&use->costs[which], 1);
	return 0;
}

/* process: of the socket's end. */
inline_always void count_cost(const struct sock *sk, const struct process_info *process, enum cgroup_cost which)
{
	if (unlikely(cgroups_counted))
		add_cost(cgroup_of(sk), process, which);
}

#endif
