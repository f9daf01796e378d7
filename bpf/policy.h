/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Policies: which share of the exchanges at a port become spans, by their class, and from which duration on they are slow.
 * User space sets them from what is counted here.
 *
 * Counts are per CPU and not atomic: one that a softirq takes away in the middle of an addition is of no account to who steers
 * by them.
 */
#ifndef WIRESPAN_POLICY_H
#define WIRESPAN_POLICY_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "slot.h"

enum sampling_class sampling_class_names;
enum policy_count policy_count_names;

struct policy policies[POLICIES] SEC(".data.policies");

struct cpu_policy_counts {
	struct policy_counts of[POLICIES];
};

/* By CPU. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* CPUs, set before load */
	__type(key, u32);
	__type(value, struct cpu_policy_counts);
} policy_counts SEC(".maps");

inline_always void count_policy(u32 slot, u32 which, u64 duration)
{
	u32 cpu = bpf_get_smp_processor_id();
	struct cpu_policy_counts *counts = bpf_map_lookup_elem(&policy_counts, &cpu);
	struct policy_counts *mine;

	if (!counts)
		return;
	mine = &counts->of[slot & (POLICIES - 1)];
	mine->duration_sum += duration;
	if (which < POLICY_COUNTS)
		mine->counts[which]++;
}

#endif
