// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* bpf/siphash.h in the kernel: the low 56 bits of the trace id of one exchange. */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "../../bpf/siphash.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

u64 key[2];
u64 client_address[2];
u64 position;
u64 boot_id;
u64 low56;
u32 sequence;
u32 netns;
u32 client_port;

SEC("syscall")
int trace_id(void *context)
{
	u64 address[2] = {client_address[0], client_address[1]};

	low56 = wirespan_trace_low56(key[0], key[1], address, client_port, sequence, position, netns, boot_id);
	return 0;
}
