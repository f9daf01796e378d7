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

/* RFC 8446 4.1.2, 5.1: the record's header, that of the message, and what precedes the session id. */
#define HELLO_TYPE 5
#define HELLO_VERSION 9
#define HELLO_MARK 11 /* bytes that tell a ClientHello */
#define HELLO_SESSION 43

#define CLIENT_HELLO 1
#define EXTENSIONS 48 /* of a ClientHello that are looked at; browsers send 20 */
#define EXTENSION_ALPN 16 /* RFC 7301 */
#define PROTOCOLS 16 /* of its list that are looked at */

#define HELLO_AT_LIMIT 127 /* in a request's head, of a ClientHello that is looked for; all ones */

inline_always int is_opaque(const struct turns *t)
{
	return t->protocol >= PROTOCOL_TLS;
}

inline_always void mark_undelimited(struct turns *t, int undelimited)
{
	u8 mark = undelimited ? FLAG_UNDELIMITED : 0;

	t->exchange.flags = (t->exchange.flags & ~FLAG_UNDELIMITED) | mark;
	/* whence those of later exchanges come */
	t->exchange.connection.flags = (t->exchange.connection.flags & ~FLAG_UNDELIMITED) | mark;
}

/* The byte at `at` of a request's head; 0 beyond its end. */
inline_always u32 head_byte(const struct head *head, u32 captured, u32 at)
{
	return at < captured ? head->bytes[at & (REQUEST_HEAD - 1)] : 0;
}

inline_always u32 head_short(const struct head *head, u32 captured, u32 at)
{
	return head_byte(head, captured, at) << 8 | head_byte(head, captured, at + 1);
}

inline_always int is_client_hello(const struct head *head, u32 captured, u32 at)
{
	return at + HELLO_MARK <= captured && head_byte(head, captured, at) == TLS_HANDSHAKE &&
	       head_byte(head, captured, at + 1) == 3 && head_byte(head, captured, at + HELLO_TYPE) == CLIENT_HELLO &&
	       !head_byte(head, captured, at + HELLO_TYPE + 1) && head_byte(head, captured, at + HELLO_VERSION) == 3;
}

enum hello_step {
	STEP_ON,
	STEP_HTTP2, /* it may be spoken */
	STEP_NO_HTTP2,
};

/* A walk over a ClientHello: walk->end is how far it came, walk->arguments the end of what it walks over. Each step is a
 * function of its own, and not static: the verifier then looks at each once, and forgets what it found.
 *
 * One entry of the list of protocols (RFC 7301 3.1); a cut one may be "h2".
 */
__attribute__((noinline)) int pass_protocol(const struct head *head, struct command *walk)
{
	u32 at, length;

	if (!head || !walk)
		return STEP_HTTP2;
	at = walk->end;
	if (at >= walk->arguments)
		return STEP_NO_HTTP2;
	length = head_byte(head, walk->captured, at);
	if (at + length >= walk->captured)
		return STEP_HTTP2;
	if (length == 2 && head_short(head, walk->captured, at + 1) == ('h' << 8 | '2'))
		return STEP_HTTP2;
	walk->end = at + 1 + length;
	return STEP_ON;
}

__attribute__((noinline)) int pass_protocols(const struct head *head, struct command *walk)
{
	int step = STEP_ON;

	for (u32 i = 0; i < PROTOCOLS && step == STEP_ON; i++)
		step = pass_protocol(head, walk);
	return step;
}

/* One extension (RFC 8446 4.2). */
__attribute__((noinline)) int pass_extension(const struct head *head, struct command *walk)
{
	u32 at;

	if (!head || !walk)
		return STEP_HTTP2;
	at = walk->end;
	if (at >= walk->arguments)
		return STEP_NO_HTTP2;
	if (at + 4 > walk->captured)
		return STEP_HTTP2;
	if (head_short(head, walk->captured, at) == EXTENSION_ALPN) {
		if (at + 6 > walk->captured)
			return STEP_HTTP2;
		walk->end = at + 6;
		walk->arguments = at + 6 + head_short(head, walk->captured, at + 4);
		return pass_protocols(head, walk);
	}
	walk->end = at + 4 + head_short(head, walk->captured, at + 2);
	return STEP_ON;
}

/* What precedes the extensions. */
__attribute__((noinline)) int pass_beginning(const struct head *head, struct command *walk)
{
	u32 at, captured;

	if (!head || !walk)
		return STEP_HTTP2;
	captured = walk->captured;
	at = walk->end + HELLO_SESSION;
	at += 1 + head_byte(head, captured, at);
	at += 2 + head_short(head, captured, at); /* cipher suites */
	at += 1 + head_byte(head, captured, at); /* compression methods */
	walk->end = at + 2;
	walk->arguments = at + 2 + head_short(head, captured, at);
	return at + 2 <= captured ? STEP_ON : STEP_HTTP2;
}

/* Whether the ClientHello at walk->end leaves it open that HTTP/2 will be spoken: it offers that, or is cut before it says
 * what it offers.
 */
__attribute__((noinline)) int may_become_http2(const struct head *head, struct command *walk)
{
	int step = pass_beginning(head, walk);

	for (u32 i = 0; i < EXTENSIONS && step == STEP_ON; i++)
		step = pass_extension(head, walk);
	return step != STEP_NO_HTTP2;
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

	if (unlikely(at || x->request_head[0] == TLS_HANDSHAKE) && is_client_hello(head, x->request_captured, at)) {
		t->protocol = PROTOCOL_TLS;
		t->command.end = at;
		t->command.captured = x->request_captured;
		mark_undelimited(t, may_become_http2(head, &t->command));
	} else if (unlikely(is_http2_preface(x->request_head, x->request_captured))) {
		t->protocol = PROTOCOL_HTTP2;
		mark_undelimited(t, 1);
	}
}

#endif
