/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Numbers among bytes, aligned or not; machines here are little-endian. */
#ifndef WIRESPAN_BYTES_H
#define WIRESPAN_BYTES_H

#include "types.h"

inline_always u32 little_endian_32(const u8 *h)
{
#ifdef __bpf__
	return *(const u32 *)h; /* one load: what is not known to be aligned the compiler would read byte by byte */
#else
	u32 value;

	__builtin_memcpy(&value, h, sizeof(value));
	return value;
#endif
}

inline_always u64 little_endian_64(const u8 *h)
{
#ifdef __bpf__
	return *(const u64 *)h;
#else
	u64 value;

	__builtin_memcpy(&value, h, sizeof(value));
	return value;
#endif
}

#define EACH_BYTE 0x0101010101010101ull

/* How many of a word's bytes come before its first zero; 8: none is. Without a branch: the verifier would go each way. */
inline_always u32 bytes_before_zero(u64 word)
{
	u64 zeros = ((word - EACH_BYTE) & ~word) >> 7 & EACH_BYTE; /* and what is behind the first one */

	return (((zeros & -zeros) - 1) & EACH_BYTE) * EACH_BYTE >> 56;
}

inline_always u32 big_endian_32(const u8 *h)
{
	return __builtin_bswap32(little_endian_32(h));
}

inline_always u32 big_endian_16(const u8 *h)
{
	return (u32)h[0] << 8 | h[1];
}

#endif
