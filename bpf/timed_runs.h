/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Which runs of a hook are timed. A sequence number that is at hand decides, times a constant: of the runs of a connection,
 * whose sequence begins at random, those that are timed are spread evenly, whatever the size of its messages. Plain C without
 * kernel calls.
 */
#ifndef WIRESPAN_TIMED_RUNS_H
#define WIRESPAN_TIMED_RUNS_H

#include "types.h"

#define MEASURED_BITS 10
#define MEASURED_ONE_IN (1 << MEASURED_BITS)
#define GOLDEN 0x9e3779b9u /* 2^32 / golden ratio: its multiples are spread evenly */

/* which: of the hook, so that not all hooks of an exchange are timed at once. Both of 32 bits. */
#define IS_TIMED(which, number) (((number) + (which)) * GOLDEN >> (32 - MEASURED_BITS) == 0)

/* What a run took, without what reading the clock takes. That may be longer, where a hypervisor stops the CPU just then. */
inline_always u64 time_of_run(u64 since, u64 until, u64 clock)
{
	u64 took = until - since;

	return took > clock ? took - clock : 0;
}

#endif
