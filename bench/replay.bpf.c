/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copies prepared records into two rings, as fast as one core can, so that what drains them can be measured alone. */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "../bpf/record.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* All sizes are set before load. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct exchange);
} records SEC(".maps");

struct ring {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
};

struct ring short_ring SEC(".maps");
struct ring long_ring SEC(".maps");

struct order {
	u64 first; /* index of the first record */
	u64 count;
};

static long copy_one(u32 index, struct order *order)
{
	u32 key = order->first + index;
	struct exchange *record = bpf_map_lookup_elem(&records, &key);

	if (!record)
		return 1;
	if (record->request_captured > REQUEST_HEAD_SHORT)
		return bpf_ringbuf_output(&long_ring, record, sizeof(*record), BPF_RB_NO_WAKEUP) != 0;
	return bpf_ringbuf_output(&short_ring, record, EXCHANGE_SHORT, BPF_RB_NO_WAKEUP) != 0;
}

/* Returns how many records were copied, at most order->count. */
SEC("syscall")
int replay(struct order *order)
{
	struct order copy = *order;

	return bpf_loop(copy.count, copy_one, &copy, 0);
}
