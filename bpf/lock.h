/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The lock of a connection.
 *
 * Compare-and-swap costs 2 ns where bpf_spin_lock(), which disables interrupts, costs 43, and it allows the calls of
 * helpers. Interrupts may stay on because nothing that takes this lock runs in one while its socket is in use by a
 * system call; preemption is off in tracepoints and in finish_quiet(), so a holder is done within microseconds. Who
 * cannot have it all the same (a hypervisor may stop a CPU) gives up: counted, and the bytes are found by position at
 * the next I/O.
 */
#ifndef WIRESPAN_LOCK_H
#define WIRESPAN_LOCK_H

#include <bpf/bpf_helpers.h>

#include "counting.h"

/* Kernels before 6.11 lack them: there a holder outside of a tracepoint may be preempted, and make others wait. */
extern void bpf_preempt_disable(void) __ksym __weak;
extern void bpf_preempt_enable(void) __ksym __weak;

#define LOCK_TRIES 100000

static long try_lock(u32 index, u32 **locked)
{
	return !__sync_val_compare_and_swap(*locked, 0, 1);
}

__attribute__((noinline)) int lock_contended(u32 *locked)
{
	if (!locked)
		return 0;
	if (bpf_loop(LOCK_TRIES, try_lock, &locked, 0) < LOCK_TRIES)
		return 1;
	count(COUNT_CONTENDED);
	return 0;
}

inline_always int lock(u32 *locked)
{
	return likely(!__sync_val_compare_and_swap(locked, 0, 1)) || lock_contended(locked);
}

/* The same without waiting: for who can come back. */
inline_always int lock_if_free(u32 *locked)
{
	return !__sync_val_compare_and_swap(locked, 0, 1);
}

inline_always void unlock(u32 *locked)
{
	barrier();
	*(volatile u32 *)locked = 0; /* x86-64 keeps stores in order */
}

#endif
