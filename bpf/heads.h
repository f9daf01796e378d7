/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* How much of a message's first bytes is wanted. */
#ifndef WIRESPAN_HEADS_H
#define WIRESPAN_HEADS_H

#include "record.h"

#define HEAD_PROBE \
	64 /* bytes of any message; more only of a request that looks like text or RESP, and of a TLS handshake */

#define TLS_HANDSHAKE 22 /* content type of a record, RFC 8446 5.1 */

/* limit: of the head, which tells a request's from a response's. */
inline_always int is_worth_more(u8 first, u32 limit)
{
	return first == TLS_HANDSHAKE || (limit == REQUEST_HEAD && (first == '*' || (first >= 'A' && first <= 'Z')));
}

struct head {
	u8 bytes[REQUEST_HEAD];
};

#endif
