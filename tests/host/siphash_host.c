// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* bpf/siphash.h behind functions that the test can call. */
#include "siphash.h"

void siphash13(const u64 *key, const u64 *words, u32 n, u64 outputs[4])
{
	struct siphash s = siphash13_words(key[0], key[1], words, n);

	for (u32 i = 0; i < 4; i++)
		outputs[i] = siphash13_output(&s, i);
}

u64 trace_low56(const u64 *key, const u64 *client_address, u16 client_port, u32 sequence, u64 position, u32 netns,
		u64 boot_id)
{
	return wirespan_trace_low56(key[0], key[1], client_address, client_port, sequence, position, netns, boot_id);
}
