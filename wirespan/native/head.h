/* SPDX-License-Identifier: Apache-2.0 */
/* The captured first bytes of one side of an exchange, and small steps over them. Bytes may be anything. */
#ifndef WIRESPAN_HEAD_H
#define WIRESPAN_HEAD_H

#include <string.h>

#include "types.h"

struct head {
	const u8 *data;
	u32 size;
};

inline_always int head_begins(struct head head, const char *text, u32 size)
{
	return head.size >= size && !memcmp(head.data, text, size);
}

inline_always int is_digit(u8 byte)
{
	return byte >= '0' && byte <= '9';
}

inline_always int is_upper(u8 byte)
{
	return byte >= 'A' && byte <= 'Z';
}

inline_always int is_letter(u8 byte)
{
	return is_upper(byte & ~0x20);
}

/* Printable ASCII without the space. */
inline_always int is_visible(u8 byte)
{
	return byte > ' ' && byte < 0x7f;
}

#endif
