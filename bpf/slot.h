/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Slots: what both ends of an exchange compute alike, so that they decide alike, and as what an exchange is counted in its
 * own. Plain C without kernel calls.
 */
#ifndef WIRESPAN_SLOT_H
#define WIRESPAN_SLOT_H

#include "record.h"

#define POLICIES 4096
/* Odd, so that each port has another product; of those found one with which well-known ports, and any 300 neighbours, have slots
 * of their own. receiver/policies.py has them, too.
 */
#define SLOT_FACTOR 40515
#define SLOT_SHIFT 4
#define SLOT_TRANSPORT 7

enum sampling_class {
	SAMPLING_REST,
	SAMPLING_SLOW,
	SAMPLING_FAILED,
	SAMPLING_CLASSES,
};

/* As which an exchange is counted; half of it is its class. */
enum policy_count {
	COUNTED_FAST, /* in half the time from which on exchanges are slow */
	COUNTED_USUAL,
	COUNTED_SLOW,
	COUNTED_SLOWEST, /* in more than twice that time */
	COUNTED_FAILED,
	POLICY_COUNTS,
};

/* slow: ns, at most 2^61; what takes longer is. left: spans until the next setting. used: an exchange has met it. */
struct policy {
	u64 slow;
	s32 left[SAMPLING_CLASSES];
	u8 levels[SAMPLING_CLASSES];
	u8 used;
	u8 reserved[8];
};

_Static_assert(sizeof(struct policy) == 32, "two share a cache line, none lies in two");

struct policy_counts {
	u64 duration_sum;
	u32 counts[POLICY_COUNTS];
	u32 reserved;
};

inline_always u32 policy_slot(const struct connection_info *c)
{
	u32 port = c->role == ROLE_CLIENT ? c->remote_port : c->local_port;

	return (u16)((port + ((u32)c->transport << SLOT_TRANSPORT)) * SLOT_FACTOR) >> SLOT_SHIFT;
}

/* Without a branch: the verifier would go each way, and from each of its ends all that follows. */
inline_always u32 counted_as(u64 slow, u64 duration, u32 failed)
{
	u32 which = ((slow >> 1) - duration) >> 63;

	which += (slow - duration) >> 63;
	which += ((slow << 1) - duration) >> 63;
	return (which & (failed - 1)) | failed << 2;
}

#endif
