/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What the first bytes of an exchange tell for certain, whatever the parsers of user space find out: its protocol, and what
 * became of the request. Plain C without kernel calls.
 */
#ifndef WIRESPAN_STATUS_H
#define WIRESPAN_STATUS_H

#include "databases.h"
#include "datagram.h"
#include "record.h"
#include "status_class.h"

inline_always int starts_with(const u8 *head, const char *text, u32 length)
{
	for (u32 i = 0; i < length; i++)
		if (head[i] != (u8)text[i])
			return 0;
	return 1;
}

inline_always int is_http_response(const struct exchange *x)
{
	const u8 *h = x->response_head;

	return x->response_captured >= 12 && starts_with(h, "HTTP/1.", 7) && h[8] == ' ' && h[9] >= '1' && h[9] <= '5';
}

/* A request that was not answered: a method (RFC 9110 9.3, RFC 5789) and a target (RFC 9112 3.2), all in one word. */
inline_always int is_http_request(const struct exchange *x)
{
	const u8 *h = x->request_head;

	if (x->request_captured < 16)
		return 0;
	switch (h[0]) {
	case 'G':
		return starts_with(h, "GET /", 5);
	case 'P':
		return starts_with(h, "POST /", 6) || starts_with(h, "PUT /", 5) || starts_with(h, "PATCH /", 7);
	case 'H':
		return starts_with(h, "HEAD /", 6);
	case 'D':
		return starts_with(h, "DELETE /", 8);
	case 'O':
		return starts_with(h, "OPTIONS ", 8);
	default:
		return 0;
	}
}

inline_always u8 protocol_of(const struct exchange *x)
{
	if (x->protocol)
		return x->protocol;
	if (x->connection.transport == IPPROTO_UDP)
		return dns_kind(x->request_head, x->request_captured) == DNS_QUERY ? PROTOCOL_DNS : PROTOCOL_UNKNOWN;
	if (is_http_response(x) || (!x->response_captured && is_http_request(x)))
		return PROTOCOL_HTTP1;
	return database_of(x);
}

inline_always u8 status_of_redis(const u8 *h)
{
	if (h[0] != '-' && h[0] != '!') /* simple and bulk error */
		return STATUS_SUCCESS;
	return starts_with(h, "-MOVED ", 7) || starts_with(h, "-ASK ", 5) ? STATUS_REDIRECTION : STATUS_ERROR;
}

#define RCODE_NXDOMAIN 3 /* RFC 1035 4.1.1 */

inline_always u8 status_of_dns(const u8 *h)
{
	u32 code = h[3] & 15;

	return !code ? STATUS_SUCCESS : code == RCODE_NXDOMAIN ? STATUS_CLIENT_ERROR : STATUS_SERVER_ERROR;
}

inline_always u8 status_class_of(const struct exchange *x, u8 protocol)
{
	const u8 *h = x->response_head;

	if (protocol == PROTOCOL_HTTP1)
		return x->response_captured ? h[9] - '0' : STATUS_UNKNOWN;
	if (protocol == PROTOCOL_RESP)
		return x->response_captured ? status_of_redis(h) : STATUS_UNKNOWN;
	if (protocol == PROTOCOL_DNS)
		return x->response_captured >= DNS_HEADER ? status_of_dns(h) : STATUS_UNKNOWN;
	return status_of_database(x, protocol);
}

/* Writes into an exchange that has ended which protocol it is of, and its status class. Whoever reads them reads them there: the
 * verifier would go on once with each that it knows.
 */
inline_always void tell(struct exchange *x)
{
	u8 protocol = protocol_of(x);

	x->connection.status = status_class_of(x, protocol);
	x->protocol = protocol;
	barrier();
}

#endif
