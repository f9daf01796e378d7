/* SPDX-License-Identifier: Apache-2.0 */
/* TLS heads: what receiver/protocols/tls.py makes of them depends on two extensions of the ClientHello, and on the
 * beginning of the answer. Randoms, session ids and key shares, which differ from handshake to handshake, are passed over.
 * Tests compare the two on any bytes.
 */
#ifndef WIRESPAN_TLS_H
#define WIRESPAN_TLS_H

#include "head.h"

#define TLS_EXTENSION_SERVER_NAME 0
#define TLS_EXTENSION_ALPN 16
#define TLS_HELLO_MARK 11 /* bytes that tell a hello */
#define TLS_MESSAGE 5
#define TLS_VERSION 9
#define TLS_SESSION_ID 43

struct tls_extensions {
	struct head server_name;
	struct head protocols;
	u8 whole; /* none of them was cut */
};

/* handshake: it begins with a ClientHello. Of the answer, 0 if that was cut: version; 1 + the numbers of the cipher
 * suite and the alert.
 */
struct tls {
	struct tls_extensions client;
	struct head agreed;
	u16 version;
	u32 cipher;
	u16 alert;
	u8 handshake;
};

static u32 tls_number(struct head head, u32 at, u32 width)
{
	u32 value = 0;

	for (u32 i = 0; i < width; i++)
		value = value << 8 | head.data[at + i];
	return value;
}

/* RFC 8446 5.1: a record begins with its type, a version 3.x and a length of at most 2^14 + 256. */
static int tls_begins_record(struct head head)
{
	return head.size >= 5 && head.data[0] >= 20 && head.data[0] <= 23 && head.data[1] == 3 && head.data[2] <= 4 &&
	       ((u32)head.data[3] << 8 | head.data[4]) <= (1 << 14) + 256;
}

/* Whether the parser may know these heads by themselves; if not, it does not. */
static int tls_possible(struct head request)
{
	return tls_begins_record(request);
}

/* Whether it does so by the records at both sides. */
static int tls_is_ciphertext(struct head request, struct head response)
{
	return tls_begins_record(request) && request.data[0] != 22 && tls_begins_record(response);
}

/* Where a vector ends whose length takes `width` bytes at `at`; beyond the head if that was cut. */
static u32 tls_behind(struct head head, u32 at, u32 width)
{
	return at + width <= head.size ? at + width + tls_number(head, at, width) : head.size + 1;
}

static int tls_is_hello(struct head head, u8 message)
{
	const u8 *data = head.data;

	return head.size >= TLS_HELLO_MARK && data[0] == 22 && data[1] == 3 && data[TLS_MESSAGE] == message &&
	       !data[TLS_MESSAGE + 1] && data[TLS_VERSION] == 3;
}

/* The first of each kind, from the block at `at` on. */
static void tls_read_extensions(struct head head, u32 at, struct tls_extensions *found)
{
	u32 end = tls_behind(head, at, 2);

	memset(found, 0, sizeof(*found));
	if (at + 2 > head.size)
		return;
	for (at += 2; at < end;) {
		struct head extension;
		u32 behind, type;

		if (at + 4 > head.size)
			return;
		behind = tls_behind(head, at + 2, 2);
		extension = (struct head){head.data + at + 4, behind - at - 4};
		type = tls_number(head, at, 2);
		if (behind > head.size && (type == TLS_EXTENSION_SERVER_NAME || type == TLS_EXTENSION_ALPN))
			return;
		if (type == TLS_EXTENSION_SERVER_NAME && !found->server_name.data)
			found->server_name = extension;
		if (type == TLS_EXTENSION_ALPN && !found->protocols.data)
			found->protocols = extension;
		at = behind;
	}
	found->whole = 1;
}

static void tls_read_client(struct head hello, struct tls_extensions *found)
{
	u32 at = tls_behind(hello, TLS_SESSION_ID, 1);

	at = tls_behind(hello, at, 2); /* cipher suites */
	at = tls_behind(hello, at, 1); /* compression methods */
	tls_read_extensions(hello, at, found);
	if (at >= TLS_VERSION + tls_number(hello, TLS_MESSAGE + 1, 3)) {
		memset(found, 0, sizeof(*found));
		found->whole = 1;
	}
}

static void tls_read_answer(struct head response, struct tls *found)
{
	struct tls_extensions extensions;
	u32 at;

	if (response.size >= 7 && response.data[0] == 21 && response.data[1] == 3 && !response.data[3] &&
	    response.data[4] == 2 && response.data[5] == 2)
		found->alert = (u16)(1 + response.data[6]);
	if (!tls_is_hello(response, 2))
		return;
	found->version = (u16)tls_number(response, TLS_VERSION, 2);
	at = tls_behind(response, TLS_SESSION_ID, 1);
	if (at + 2 <= response.size)
		found->cipher = 1 + tls_number(response, at, 2);
	tls_read_extensions(response, at + 3, &extensions);
	found->agreed = extensions.protocols;
}

/* Takes these heads apart; the ClientHello may lie behind other messages. */
static void tls_read(struct head request, struct head response, struct tls *found)
{
	memset(found, 0, sizeof(*found));
	for (u32 at = 0; at + TLS_HELLO_MARK <= request.size; at++) {
		struct head hello = {request.data + at, request.size - at};

		if (!tls_is_hello(hello, 1))
			continue;
		found->handshake = 1;
		tls_read_client(hello, &found->client);
		tls_read_answer(response, found);
		return;
	}
}

#endif
