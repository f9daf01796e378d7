// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* bpf/timed_runs.h on the host, driven by tests/unit/test_own_cost.py. */
#include "timed_runs.h"

u32 one_in(void)
{
	return MEASURED_ONE_IN;
}

u64 took(u64 since, u64 until, u64 clock)
{
	return time_of_run(since, until, clock);
}

/* How many of `count` runs of a hook are timed, of messages of `size` bytes in a stream that begins at `sequence`. */
u32 timed(u32 which, u32 sequence, u32 size, u32 count)
{
	u32 found = 0;

	for (u32 i = 0; i < count; i++)
		found += IS_TIMED(which, sequence + i * size);
	return found;
}
