/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* How much of a message's first bytes is wanted. */
#ifndef WIRESPAN_HEADS_H
#define WIRESPAN_HEADS_H

#include "record.h"

#define HEAD_PROBE 64 /* bytes of any message; more only of a request that looks like text, RESP or a TLS handshake */
#define TLS_HANDSHAKE 22 /* RFC 8446 5.1, ContentType */

inline_always int is_worth_more(u8 first)
{
	return first == '*' || (first >= 'A' && first <= 'Z') || first == TLS_HANDSHAKE;
}

struct head {
	u8 bytes[REQUEST_HEAD];
};

#endif
