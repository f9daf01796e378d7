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

inline_always u32 big_endian_32(const u8 *h)
{
	return __builtin_bswap32(little_endian_32(h));
}

inline_always u32 big_endian_16(const u8 *h)
{
	return (u32)h[0] << 8 | h[1];
}

#endif
