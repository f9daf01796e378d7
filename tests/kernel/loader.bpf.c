// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Programs that load and work, and one for each way in which others do not. */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct task_struct {
	int no_such_field;
} __attribute__((preserve_access_index));

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
} __attribute__((preserve_access_index));

struct bpf_iter__bpf_map_elem {
	struct bpf_iter_meta *meta;
	__u16 *key;
	__u32 *value;
} __attribute__((preserve_access_index));

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4);
	__type(key, __u16);
	__type(value, __u32);
} squares SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} renames SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 8192);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, __u64);
} tallies SEC(".maps");

const volatile __u64 factor = 1;
const volatile __u16 terms[2] = {};
__u64 result = 0;
__s32 changed = -7;

SEC("syscall")
int compute(__u32 *number)
{
	result = *number * factor + terms[0] + terms[1];
	changed++;
	return -3;
}

/* Adds a number to its tally, on the CPU that runs this. */
SEC("syscall")
int tally(__u32 *number)
{
	__u64 none = 0, *sum;
	__u32 key = *number;

	bpf_map_update_elem(&tallies, &key, &none, BPF_NOEXIST);
	sum = bpf_map_lookup_elem(&tallies, &key);
	if (sum)
		*sum += key;
	return 0;
}

/* A thread was given another name. */
SEC("tp_btf/task_rename")
int BPF_PROG(count_renames)
{
	__u32 key = 0, *count = bpf_map_lookup_elem(&renames, &key);

	if (count)
		(*count)++;
	return 0;
}

SEC("iter/bpf_map_elem")
int write_keys(struct bpf_iter__bpf_map_elem *ctx)
{
	__u16 key, *visited = ctx->key;

	if (!visited) /* the call after the last element */
		return 0;
	key = *visited;
	bpf_seq_write(ctx->meta->seq, &key, sizeof(key));
	return 0;
}

SEC("tp_btf/no_such_tracepoint")
int BPF_PROG(no_target)
{
	return 0;
}

SEC("tp_btf/task_rename")
int BPF_PROG(no_field, struct task_struct *task)
{
	return task->no_such_field;
}

SEC("tp_btf/task_rename")
int BPF_PROG(no_proof)
{
	return *(volatile int *)0x1000;
}

SEC("kprobe/no_such_function")
int no_function(void *ctx)
{
	return 0;
}
