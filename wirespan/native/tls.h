/* SPDX-License-Identifier: Apache-2.0 */
/* TLS heads: of ciphertext nothing matters to receiver/protocols/tls.py but that it is some; a handshake is read whole. */
#ifndef WIRESPAN_TLS_H
#define WIRESPAN_TLS_H

#include "head.h"

/* RFC 8446 5.1: a record begins with its type, a version 3.x and a length of at most 2^14 + 256. */
static int tls_begins_record(struct head head)
{
	return head.size >= 5 && head.data[0] >= 20 && head.data[0] <= 23 && head.data[1] == 3 && head.data[2] <= 4 &&
	       ((u32)head.data[3] << 8 | head.data[4]) <= (1 << 14) + 256;
}

/* Whether the parser may know these heads; if not, it does not. */
static int tls_possible(struct head request)
{
	return tls_begins_record(request);
}

/* Whether all that these heads say to the parser is that they are ciphertext. */
static int tls_is_ciphertext(struct head request, struct head response)
{
	return tls_begins_record(request) && request.data[0] != 22 && tls_begins_record(response);
}

#endif
