/* SPDX-License-Identifier: Apache-2.0 */
/* Whether bytes are UTF-8 (RFC 3629): no overlong forms, no surrogates, nothing beyond U+10FFFF. */
#ifndef WIRESPAN_UTF8_H
#define WIRESPAN_UTF8_H

#include <string.h>

#include "types.h"

#define UTF8_HIGH_BITS 0x8080808080808080ull

/* The length of the character at ``at``, of which ``left`` bytes are there; 0 if it is none. */
inline_always u64 utf8_character(const u8 *at, u64 left)
{
	u8 first = at[0], least = 0x80, most = 0xbf;
	u64 length = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;

	if (first < 0x80)
		return 1;
	if (first < 0xc2 || first > 0xf4 || length > left)
		return 0;
	if (first == 0xe0)
		least = 0xa0;
	else if (first == 0xed)
		most = 0x9f;
	else if (first == 0xf0)
		least = 0x90;
	else if (first == 0xf4)
		most = 0x8f;
	if (at[1] < least || at[1] > most)
		return 0;
	for (u64 i = 2; i < length; i++)
		if ((at[i] & 0xc0) != 0x80)
			return 0;
	return length;
}

static int is_utf8(const u8 *bytes, u64 size)
{
	u64 at = 0;

	while (at < size) {
		u64 eight, length;

		if (size - at >= sizeof(eight)) {
			memcpy(&eight, bytes + at, sizeof(eight));
			if (!(eight & UTF8_HIGH_BITS)) {
				at += sizeof(eight);
				continue;
			}
		}
		length = utf8_character(bytes + at, size - at);
		if (!length)
			return 0;
		at += length;
	}
	return 1;
}

#endif
