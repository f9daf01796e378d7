/* SPDX-License-Identifier: Apache-2.0 */
/* DNS heads: what receiver/protocols/dns.py makes of them depends on the query but for its id, and on the flags of the
 * response. Tests compare the two on any bytes.
 */
#ifndef WIRESPAN_DNS_H
#define WIRESPAN_DNS_H

#include "head.h"

#define DNS_LEAST 17 /* bytes of a query: header and the question for the root */

/* prefix: bytes before the message: 0, or 2 for the length over TCP. flags: of the response. */
struct dns {
	u32 prefix;
	u32 flags;
	u8 answered;
};

/* The constant bytes of a query's header, which begins at `prefix`. */
static int dns_is_query(struct head request, u32 prefix)
{
	const u8 *header = request.data + prefix;

	return request.size >= prefix + DNS_LEAST && !(header[2] & 0x80) && !header[4] && header[5] == 1 &&
	       !header[6] && !header[8] && !header[10];
}

/* Whether the parser may know these heads; if not, it does not. */
static int dns_possible(struct head request)
{
	return dns_is_query(request, 0) || dns_is_query(request, 2);
}

/* Whether these heads say nothing else to the parser, which may yet refuse them. */
static int dns_read(struct head request, struct head response, struct dns *found)
{
	const u8 *answer;

	if (dns_is_query(request, 0) == dns_is_query(request, 2))
		return 0;
	found->prefix = dns_is_query(request, 0) ? 0 : 2;
	found->answered = response.size != 0;
	found->flags = 0;
	if (!found->answered)
		return 1;
	if (response.size < found->prefix + 4)
		return 0;
	answer = response.data + found->prefix;
	if (memcmp(answer, request.data + found->prefix, 2) || !(answer[2] & 0x80))
		return 0;
	found->flags = (u32)answer[2] << 8 | answer[3];
	return 1;
}

#endif
