/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#ifndef WIRESPAN_COUNTING_H
#define WIRESPAN_COUNTING_H

#include <linux/bpf.h>

#include "counters.h"
#include "record.h"
#include "types.h"
#include <bpf/bpf_helpers.h>

/* Behind them all once more, those that were counted where nothing interrupts that counts there, too. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2 * COUNTERS);
	__type(key, u32);
	__type(value, u64);
} counters SEC(".maps");

/* For dtypes: an enum that no variable has is not in BTF. */
enum counter counter_names;

inline_always void count_many(enum counter which, u64 amount)
{
	u32 key = which;
	u64 *value = bpf_map_lookup_elem(&counters, &key);

	if (value)
		__sync_fetch_and_add(value, amount); /* a softirq on this CPU counts, too */
}

inline_always void count(enum counter which)
{
	count_many(which, 1);
}

/* The same of an exchange that ended in this context: on the way of every exchange, an addition that is not atomic. */
inline_always void count_in(enum context context, enum counter which)
{
	u32 key = COUNTERS + which;
	u64 *value;

	if (unlikely(context != CONTEXT_HOOK)) {
		count(which);
		return;
	}
	value = bpf_map_lookup_elem(&counters, &key);
	if (value)
		++*value;
}

#endif
