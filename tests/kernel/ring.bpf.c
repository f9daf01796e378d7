// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Fills rings on request, from SEC("syscall") programs that the test runs. */
#include <stddef.h>

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Records end inside the payload, 5 bytes before a multiple of 8. */
#define PAYLOAD 483

struct sample {
	__u64 number;
	__u16 kind;
	__u8 payload[PAYLOAD + 3];
};

#define SAMPLE_SIZE (offsetof(struct sample, payload) + PAYLOAD)

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} fixed SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} variable SEC(".maps");

struct sample layout;
__u64 refused = 0; /* records for which a ring had no room */
volatile __u32 held = 0, released = 0;
__u8 bytes[512];

struct order {
	__u64 first; /* number of the first record */
	__u64 count; /* 64 bits: where the kernel inlines bpf_loop it compares the whole register */
	__u64 discard_every; /* every how many records one is given up; 0: none */
};

static long produce_one(__u32 index, struct order *order)
{
	struct sample *sample = bpf_ringbuf_reserve(&fixed, SAMPLE_SIZE, 0);

	if (!sample) {
		refused++;
		return 0;
	}
	sample->number = order->first + index;
	sample->kind = 7;
	__builtin_memset(sample->payload, (__u8)index, PAYLOAD);
	if (order->discard_every && index % order->discard_every == 0)
		bpf_ringbuf_discard(sample, BPF_RB_NO_WAKEUP);
	else
		bpf_ringbuf_submit(sample, BPF_RB_NO_WAKEUP);
	return 0;
}

SEC("syscall")
int produce(struct order *order)
{
	struct order copy = *order;

	return bpf_loop(copy.count, produce_one, &copy, 0);
}

/* Record n has n % 512 + 1 bytes, all of them n % 251. */
static long produce_one_variable(__u32 index, struct order *order)
{
	__u64 number = order->first + index;
	__u32 length = (number & (sizeof(bytes) - 1)) + 1; /* as a mask, so that the verifier sees the bound */

	__builtin_memset(bytes, number % 251, sizeof(bytes));
	if (bpf_ringbuf_output(&variable, bytes, length, BPF_RB_NO_WAKEUP))
		refused++;
	return 0;
}

SEC("syscall")
int produce_variable(struct order *order)
{
	struct order copy = *order;

	return bpf_loop(copy.count, produce_one_variable, &copy, 0);
}

SEC("syscall")
int produce_short(void *ctx)
{
	return bpf_ringbuf_output(&fixed, bytes, 16, BPF_RB_NO_WAKEUP);
}

static long wait_a_little(__u32 index, void *ctx)
{
	return released != 0;
}

static long wait(__u32 index, void *ctx)
{
	bpf_loop(1 << 20, wait_a_little, NULL, 0);
	return released != 0;
}

/* Leaves record 1 unfinished, with record 2 complete behind it, until `released` is set, or some seconds. */
SEC("syscall")
int hold(struct order *order)
{
	struct sample *sample = bpf_ringbuf_reserve(&fixed, SAMPLE_SIZE, 0);
	struct order next = {.first = 2, .count = 1};

	if (!sample)
		return -1;
	sample->number = 1;
	produce_one(0, &next);
	held = 1;
	bpf_loop(1 << 10, wait, NULL, 0);
	bpf_ringbuf_submit(sample, BPF_RB_NO_WAKEUP);
	return 0;
}
