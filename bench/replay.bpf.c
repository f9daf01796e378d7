/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copies prepared records into a ring, as fast as one core can, so that what drains it can be measured alone. */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "../bpf/record.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct record {
	u8 bytes[EXCHANGE_SHORT];
};

/* Both sizes are set before load. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct record);
} records SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} ring SEC(".maps");

struct exchange exchange_layout;
struct order {
	u64 first; /* index of the first record */
	u64 count;
};

static long copy_one(u32 index, struct order *order)
{
	u32 key = order->first + index;
	struct record *record = bpf_map_lookup_elem(&records, &key);

	return !record || bpf_ringbuf_output(&ring, record, sizeof(*record), BPF_RB_NO_WAKEUP);
}

/* Returns how many records were copied, at most order->count. */
SEC("syscall")
int replay(struct order *order)
{
	struct order copy = *order;

	return bpf_loop(copy.count, copy_one, &copy, 0);
}
