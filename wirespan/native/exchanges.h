/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel's exchange records as columns. Records are those of bpf/record.h, `stride` bytes apart: those of the ring of
 * short records end inside their request head. Pointers into a record are taken, never copies of the struct.
 */
#ifndef WIRESPAN_EXCHANGES_H
#define WIRESPAN_EXCHANGES_H

#include "record.h"

_Static_assert(EXCHANGE_SHORT % 8 == 0 && sizeof(struct exchange) % 8 == 0, "records of an array are aligned");

/* size: bytes of a record. */
struct records {
	const u8 *first;
	u64 stride;
	u64 size;
	u64 count;
};

inline_always const struct exchange *record_at(const struct records *records, u64 row)
{
	return (const struct exchange *)(records->first + row * records->stride);
}

#endif
