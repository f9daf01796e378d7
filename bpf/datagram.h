/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* UDP: which datagrams are a request and its response. Plain C without kernel calls, as exchange.h.
 *
 * A datagram is a message, so there are no turns to wait for. What has to be known of one is who sent it, and the hook of a
 * receive does not say: datagrams are noted down when they arrive, in the order in which they will be read (struct
 * datagrams). The n-th notice and the n-th receive are about the same one, whichever comes first.
 *
 * Requests that wait for a response are numbered within their flow (one socket, one peer, one role), and responses take
 * them in order: UDP has nothing better to offer for a protocol that nobody knows. DNS has an id of its own
 * (RFC 1035 4.1.1), which is used instead.
 *
 * Both ends have to name an exchange alike. There are no positions in UDP; what both have seen is the request. So its
 * `position` is a hash of the datagram's first bytes and its size, and `sequence` tells how many such requests the flow had
 * before it.
 */
#ifndef WIRESPAN_DATAGRAM_H
#define WIRESPAN_DATAGRAM_H

#include "record.h"
#include "siphash.h"

#define DATAGRAMS_QUEUED 64 /* unread datagrams of a socket that are noted down */
#define DATAGRAM_HEAD 64

/* What is known of a datagram. Addresses are 16 bytes, as those of struct connection_info; 0: not known. */
struct datagram {
	u64 number; /* which of the socket's arrivals it is, from 1 on */
	u64 time; /* of its arrival, or of the call's return */
	u64 peer[2];
	u64 local[2];
	u32 size;
	u16 peer_port;
	u8 captured; /* valid bytes of head; behind them are zeros up to a word */
	u8 flags; /* enum datagram_flag */
	u8 head[DATAGRAM_HEAD];
};

enum datagram_flag {
	DATAGRAM_LOOPED = 1, /* came through the loopback device, so its sender is on this machine */
	DATAGRAM_ANSWERED = 2, /* see take_ahead() */
};

/* Arrivals that nobody has read. One writer at a time, who writes no entry that may be read. */
struct datagrams {
	u64 arrived; /* datagrams that have been put into the socket's queue */
	u64 taken; /* of them, those that were read */
	u64 newest; /* address of the packet that was noted down last */
	s64 surplus; /* entries too many, see balance() */
	u64 surplus_since;
	u32 ahead; /* noted down before the notice of their own came */
	u32 reserved;
	struct datagram entries[DATAGRAMS_QUEUED];
};

/* Room for what has just arrived; NULL if it is not to be noted down: too many are unread. */
inline_always struct datagram *next_arrival(struct datagrams *d)
{
	u64 number = ++d->arrived;

	if ((s64)(number - d->taken) > DATAGRAMS_QUEUED)
		return NULL;
	return &d->entries[number % DATAGRAMS_QUEUED];
}

/* It arrived, and nothing else is known of it. */
inline_always void skip_arrival(struct datagrams *d)
{
	d->arrived++;
}

/* Threads that read one socket may run their hooks in another order than they took the datagrams in. So far apart. */
#define DISORDER 4

inline_always struct datagram *arrival(struct datagrams *d, u64 number)
{
	u32 index = number % DATAGRAMS_QUEUED;

	opaque(index);
	return &d->entries[index & (DATAGRAMS_QUEUED - 1)];
}

#define HEAD_WORDS (DATAGRAM_HEAD / 8)

/* head: the first bytes of what was read, zeros behind them; NULL: not known. */
inline_always int is_about(const struct datagram *entry, u64 number, u32 size, const u64 *head)
{
	u64 different = 0;

	if (entry->number != number || entry->size != size)
		return 0;
	if (!head || !entry->captured)
		return 1;
#pragma unroll
	for (u32 i = 0; i < HEAD_WORDS; i++)
		different |= head[i] ^ ((const u64 *)entry->head)[i];
	return !different;
}

/* Word by word: a copy of an entry on the stack would be too much for kernels before 6.13, where the stacks of all functions
 * together have 512 bytes.
 */
inline_always void exchange_entries(struct datagram *one, struct datagram *other)
{
	u64 *words = (u64 *)one, *others = (u64 *)other, word;

#pragma unroll
	for (u32 i = 0; i < sizeof(*one) / sizeof(word); i++) {
		word = words[i];
		words[i] = others[i];
		others[i] = word;
	}
}

/* One of the next entries, if it is about what was read, changes places with this one. Returns whether it did. */
inline_always int reorder(struct datagrams *d, u64 number, u32 size, const u64 *head)
{
	struct datagram *entry = arrival(d, number);
	u64 own = entry->number;

#pragma unroll
	for (u32 ahead = 1; ahead < DISORDER; ahead++) {
		struct datagram *other = arrival(d, number + ahead);

		if (!is_about(other, number + ahead, size, head))
			continue;
		exchange_entries(entry, other);
		entry->number = number;
		other->number = own == number ? number + ahead : 0;
		return 1;
	}
	return 0;
}

/* One datagram of at least `size` bytes was read: copies its entry. Returns 0 if it has none. What was noted down may be
 * another datagram's: that of a thread whose hook is late, or of a packet that got the memory of one that was read.
 */
inline_always int take_arrival(struct datagrams *d, u32 size, const u64 *head, struct datagram *to)
{
	u64 number = __sync_fetch_and_add(&d->taken, 1) + 1;
	struct datagram *entry = arrival(d, number);

	if (unlikely(!is_about(entry, number, size, head)) && !reorder(d, number, size, head) &&
	    (entry->number != number || entry->size <= size)) /* a larger one was cut off by its reader's buffer */
		return 0;
	*to = *entry;
	barrier();
	return entry->number == number;
}

/* A datagram from this peer that has been read and answered by a thread whose hook of the receive told of another one:
 * copies its entry, and marks it for the hook that will tell of it. Returns 0 if there is none.
 */
inline_always int take_ahead(struct datagrams *d, const u64 *peer, u16 port, struct datagram *to)
{
#pragma unroll
	for (u32 ahead = 1; ahead <= DISORDER; ahead++) {
		struct datagram *entry = arrival(d, d->taken + ahead);

		if (entry->number != d->taken + ahead || entry->flags & DATAGRAM_ANSWERED || entry->peer_port != port ||
		    entry->peer[0] != peer[0] || entry->peer[1] != peer[1])
			continue;
		*to = *entry;
		entry->flags |= DATAGRAM_ANSWERED;
		return 1;
	}
	return 0;
}

#define SURPLUS_TIME 1000000000
#define DEFICIT_TIME 10000000

/* A datagram that the kernel threw away after it had been put into the queue (a wrong checksum is found when it is read)
 * leaves an entry too many; a notice that was lost, one too few. `unread`: datagrams in the queue but those that have just
 * arrived. A reader whose hook is late looks like the first for a moment, a notice that comes late like the other.
 */
inline_always void balance(struct datagrams *d, u64 unread, u64 now)
{
	s64 surplus = (s64)(d->arrived - d->taken - unread);

	if (!surplus || surplus != d->surplus) {
		d->surplus = surplus;
		d->surplus_since = now;
	} else if (now - d->surplus_since >= (surplus > 0 ? SURPLUS_TIME : DEFICIT_TIME)) {
		if (surplus > 0)
			d->taken += surplus;
		else
			d->arrived -= surplus;
		d->surplus = 0;
	}
}

/* ---- what a datagram is -------------------------------------------------------------------------------------- */

enum dns {
	DNS_NONE,
	DNS_QUERY,
	DNS_RESPONSE,
};

#define DNS_HEADER 12

/* By the header (RFC 1035 4.1.1): one question; a query has no answers, and an opcode in use; the reserved bit is 0. A
 * name is at least the root, so a message is longer than its header, but an error may leave the question out.
 */
inline_always enum dns dns_kind(const u8 *h, u32 captured)
{
	u32 is_response, opcode;

	if (captured < DNS_HEADER)
		return DNS_NONE;
	is_response = h[2] >> 7;
	opcode = h[2] >> 3 & 15;
	if (h[4] || h[5] > 1 || h[3] & 0x40 || opcode == 3 || opcode > 6)
		return DNS_NONE;
	if (is_response)
		return h[5] || h[3] & 15 ? DNS_RESPONSE : DNS_NONE;
	if (!h[5] || captured < DNS_HEADER + 5 || h[3] & 15)
		return DNS_NONE;
	/* NOTIFY and UPDATE bring records, but not 256 (RFC 1996, RFC 2136); a query none but additional ones. */
	if (h[6] | h[8] | h[10] || (!opcode && (h[7] | h[9])))
		return DNS_NONE;
	return DNS_QUERY;
}

inline_always u32 dns_id(const u8 *h)
{
	return (u32)h[0] << 8 | h[1];
}

#define QUIC_INITIAL 1200 /* bytes of a datagram that begins a connection, at least (RFC 9000 14.1) */
#define QUIC_ID 20 /* bytes of a connection id, at most */

/* A long header of QUIC (RFC 9000 17.2) of a version that is in use: 1, 2 (RFC 9369) or a draft, in a datagram as large as
 * the first ones of a connection are. What follows on the socket has short headers.
 */
inline_always int is_quic(const u8 *h, u32 captured, u32 size)
{
	u32 version;

	if (size < QUIC_INITIAL || captured < 7 || (h[0] & 0xc0) != 0xc0 || h[5] > QUIC_ID)
		return 0;
	version = (u32)h[1] << 24 | (u32)h[2] << 16 | (u32)h[3] << 8 | h[4];
	return version == 1 || version == 0x6b3343cf || version >> 8 == 0xff0000;
}

/* What both ends know of a datagram without a word between them. */
inline_always u64 content_hash(u64 key0, u64 key1, const struct datagram *g)
{
	u64 words[HEAD_WORDS + 1];

#pragma unroll
	for (u32 i = 0; i < HEAD_WORDS; i++)
		words[i] = ((const u64 *)g->head)[i];
	words[HEAD_WORDS] = g->size;
	struct siphash s = siphash13_words(key0, key1, words, HEAD_WORDS + 1);
	return siphash13_output(&s, 0);
}

/* A name of the flow of a socket with a peer, in a role; never that of a connection's cookie, which is a small number. */
inline_always u64 flow_name(u64 cookie, u8 role, const u64 *peer, u16 peer_port)
{
	u64 words[4] = {cookie, peer[0], peer[1], (u64)role << 16 | peer_port};
	struct siphash s = siphash13_words(cookie, role, words, 4);

	return siphash13_output(&s, 0) | 1ull << 63;
}

/* ---- flows --------------------------------------------------------------------------------------------------- */

/* A client that sends the same again within this time does not repeat itself: it has several requests under way. */
#define PATIENCE 100000000
/* One that sends something else after this time does not wait for an answer to what went before. Its CPU may be taken from
 * it for longer than PATIENCE, and timers that count lost answers are hardly ever shorter than this.
 */
#define GIVEN_UP 500000000
/* Different datagrams without any answer, after which a flow is one-way. */
#define UNANSWERED 16

/* Requests [first, next) wait. */
struct flow {
	u64 latest; /* content of the last request */
	u64 time; /* of the last request */
	u32 first;
	u32 next;
	u32 different; /* requests, repetitions left out */
	u32 answered; /* a response has been seen */
};

enum request_kind {
	REQUEST_NEW, /* with the number flow->next - 1 */
	REQUEST_REPEATED, /* of the one with that number */
	REQUEST_ONE_WAY, /* nobody has ever answered here */
};

/* A request that is not DNS. */
inline_always enum request_kind begin_request(struct flow *f, u64 content, u64 now)
{
	u64 after = now - f->time;

	f->time = now;
	if (f->first != f->next && after >= PATIENCE && f->latest == content)
		return REQUEST_REPEATED;
	if (after >= GIVEN_UP)
		f->first = f->next; /* they wait for their timeout, and take no response */
	f->latest = content;
	f->different++;
	if (!f->answered && f->different > UNANSWERED)
		return REQUEST_ONE_WAY;
	f->next++;
	return REQUEST_NEW;
}

/* A request that is repeated although nobody waits for it any more: it has had its timeout. It is a new one, with the number
 * flow->next - 1.
 */
inline_always void begin_again(struct flow *f)
{
	f->first = f->next++;
	f->different++;
}

/* A response: whether a request waits for it, and its number. */
inline_always int take_request(struct flow *f, u32 *number)
{
	f->answered = 1;
	if (f->first == f->next)
		return 0;
	*number = f->first++;
	return 1;
}

/* Whether an unanswered request of a client that is not DNS was one: somebody answers there, or it was the only one, which
 * cannot be told from a message that wants no answer.
 */
inline_always int wanted_answer(const struct flow *f)
{
	return f->answered || f->different == 1;
}

#endif
