/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What the hooks in the way of every packet cost: one run in MEASURED_ONE_IN is timed. The others pay for a load, a
 * multiplication and a comparison. BPF's own statistics time every run, and may only be asked for with CAP_SYS_ADMIN.
 */
#ifndef WIRESPAN_OWN_COST_H
#define WIRESPAN_OWN_COST_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "timed_runs.h"

/* By the name of the program. */
enum hook {
	HOOK_SOCK_SEND_LENGTH,
	HOOK_SOCK_RECV_LENGTH,
	HOOK_TCP_SENDMSG_LOCKED,
	HOOK_SK_DATA_READY,
	HOOKS,
};

enum hook hook_names;

/* Of the runs that were timed. ns: without what reading the clock takes. */
struct own_cost {
	u64 runs;
	u64 ns;
};

/* A listening socket has no sequence: it would be timed always, or never. */
_Static_assert(!IS_TIMED(HOOK_SK_DATA_READY, 0u), "never");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, HOOKS);
	__type(key, u32);
	__type(value, struct own_cost);
} own_costs SEC(".maps");

/* When a run began that is timed; 0: it is not. What the verifier knows of 0 it forgets, or it would look at all that follows
 * twice.
 */
inline_always u64 begin_measuring(enum hook which, u32 number)
{
	u64 since = number, same = number;

	opaque(since);
	opaque(same);
	since ^= same;
	if (unlikely(IS_TIMED(which, number)))
		since = bpf_ktime_get_ns();
	return since;
}

static __attribute__((noinline)) int measure(u32 which, u64 since)
{
	u64 until = bpf_ktime_get_ns(), clock = bpf_ktime_get_ns() - until;
	struct own_cost *cost = bpf_map_lookup_elem(&own_costs, &which);

	if (!cost)
		return 0;
	__sync_fetch_and_add(&cost->runs, 1); /* a softirq on this CPU may measure, too */
	__sync_fetch_and_add(&cost->ns, time_of_run(since, until, clock));
	return 0;
}

inline_always void end_measuring(enum hook which, u64 since)
{
	if (unlikely(since))
		measure(which, since);
}

#endif
