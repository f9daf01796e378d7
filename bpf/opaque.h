/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Connections whose bytes nobody here can read as requests: TLS (RFC 8446, RFC 5246), and HTTP/2 (RFC 9113), whose
 * streams are interleaved and whose headers are compressed.
 *
 * Both say so where they begin: TLS by a ClientHello, wherever in a connection it comes (STARTTLS), HTTP/2 by its preface.
 * From the next request on nothing of such a connection is captured: ciphertext may look like anything.
 */
#ifndef WIRESPAN_OPAQUE_H
#define WIRESPAN_OPAQUE_H

#include "heads.h"
#include "turns.h"

/* RFC 8446 4.1.2, 5.1: the record's header, that of the message, and its version. */
#define HELLO_TYPE 5
#define HELLO_VERSION 9
#define HELLO_MARK 11 /* bytes that tell a ClientHello */

#define CLIENT_HELLO 1
#define HELLO_AT_LIMIT 127 /* in a request's head, of a ClientHello that is looked for; all ones */

inline_always int is_opaque(const struct turns *t)
{
	return is_opaque_protocol(t->protocol);
}

/* The byte at `at` of a request's head; 0 beyond its end. */
inline_always u32 head_byte(const struct head *head, u32 captured, u32 at)
{
	return at < captured ? head->bytes[at & (REQUEST_HEAD - 1)] : 0;
}

inline_always int is_client_hello(const struct head *head, u32 captured, u32 at)
{
	return at + HELLO_MARK <= captured && head_byte(head, captured, at) == TLS_HANDSHAKE &&
	       head_byte(head, captured, at + 1) == 3 && head_byte(head, captured, at + HELLO_TYPE) == CLIENT_HELLO &&
	       !head_byte(head, captured, at + HELLO_TYPE + 1) && head_byte(head, captured, at + HELLO_VERSION) == 3;
}

/* "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" (RFC 9113 3.4), as it lies in memory on a little-endian machine */
#define PREFACE_SIZE 24
#define PREFACE_FIRST 0x5448202a20495250ull
#define PREFACE_SECOND 0x0a0d302e322f5054ull
#define PREFACE_THIRD 0x0a0d0a0d4d530a0dull

inline_always int is_http2_preface(const u8 *head, u32 captured)
{
	const u64 *words = (const u64 *)head;

	return captured >= PREFACE_SIZE && words[0] == PREFACE_FIRST && words[1] == PREFACE_SECOND &&
	       words[2] == PREFACE_THIRD;
}

/* The head of the request under way, as far as it was captured, may tell what connection this is from now on. */
inline_always void recognise(struct turns *t)
{
	const struct exchange *x = &t->exchange;
	const struct head *head = (const struct head *)x->request_head;
	u32 at = t->hello_at;

	if (unlikely(at || x->request_head[0] == TLS_HANDSHAKE) && is_client_hello(head, x->request_captured, at))
		t->protocol = PROTOCOL_TLS;
	else if (unlikely(is_http2_preface(x->request_head, x->request_captured)))
		t->protocol = PROTOCOL_HTTP2;
}

#endif
