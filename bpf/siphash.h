/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* SipHash-1-3 over 64-bit words, for ids that both ends of a connection compute alone. Plain C without kernel calls:
 * compiled for BPF and, in tests, for the host. wirespan/native/ids.c calls it for receiver/ids.py; tests/vectors/siphash.json
 * holds all to the same values.
 *
 * The hash is that of the SipHash paper (Aumasson, Bernstein 2012) with 1 round a word and 3 at the end, in the
 * 128-bit variant of its reference code: outputs 0 and 1 are the two halves of that result. Outputs 2 and 3 go on in
 * the same manner: v1 ^= 0xcc, then v1 ^= 0xbb, each before 3 more rounds.
 */
#ifndef WIRESPAN_SIPHASH_H
#define WIRESPAN_SIPHASH_H

#include "types.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "words of addresses are loaded in host order, which must be SipHash's little-endian"
#endif

#define SIPHASH_FINAL_ROUNDS 3

struct siphash {
	u64 v0, v1, v2, v3;
};

inline_always u64 siphash_rotate(u64 value, u32 bits)
{
	return value << bits | value >> (64 - bits);
}

inline_always void siphash_round(struct siphash *s)
{
	s->v0 += s->v1;
	s->v1 = siphash_rotate(s->v1, 13) ^ s->v0;
	s->v0 = siphash_rotate(s->v0, 32);
	s->v2 += s->v3;
	s->v3 = siphash_rotate(s->v3, 16) ^ s->v2;
	s->v0 += s->v3;
	s->v3 = siphash_rotate(s->v3, 21) ^ s->v0;
	s->v2 += s->v1;
	s->v1 = siphash_rotate(s->v1, 17) ^ s->v2;
	s->v2 = siphash_rotate(s->v2, 32);
}

inline_always void siphash_absorb(struct siphash *s, u64 word)
{
	s->v3 ^= word;
	siphash_round(s);
	s->v0 ^= word;
}

/* Absorbs the n words. n is a constant at every call, so that the loop unrolls and the state stays in registers. */
inline_always struct siphash siphash13_words(u64 key0, u64 key1, const u64 *words, u32 n)
{
	struct siphash s = {
		.v0 = key0 ^ 0x736f6d6570736575ULL,
		.v1 = key1 ^ 0x646f72616e646f6dULL ^ 0xee, /* 0xee: the 128-bit variant */
		.v2 = key0 ^ 0x6c7967656e657261ULL,
		.v3 = key1 ^ 0x7465646279746573ULL,
	};

	for (u32 i = 0; i < n; i++)
		siphash_absorb(&s, words[i]);
	/* The last block: the length in bytes, modulo 256, in the highest byte. */
	siphash_absorb(&s, (u64)(n * 8) << 56);
	return s;
}

/* The next output. `index` counts from 0; the outputs of one hash must be taken in order. */
inline_always u64 siphash13_output(struct siphash *s, u32 index)
{
	if (index == 0)
		s->v2 ^= 0xee;
	else
		s->v1 ^= 0xee - 0x11 * index; /* 0xdd as in the reference code, then 0xcc, 0xbb */
	for (u32 i = 0; i < SIPHASH_FINAL_ROUNDS; i++)
		siphash_round(s);
	return s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
}

/* Whether a 16-byte address is ::1 or ::ffff:127.0.0.0/104. */
inline_always int address_is_loopback(const u64 *address)
{
	return address[0] == 0 && ((address[1] & 0xffffffffffULL) == 0x7fffff0000ULL || address[1] == 1ULL << 56);
}

#define EXCHANGE_WORDS 5

/* The hash that every id of an exchange is an output of; see receiver/ids.py for the message. */
inline_always struct siphash wirespan_exchange_hash(u64 key0, u64 key1, const u64 *client_address, u16 client_port,
						    u32 sequence, u64 position, u32 netns, u64 boot_id)
{
	u64 words[EXCHANGE_WORDS] = {
		client_address[0],
		client_address[1],
		(u64)sequence << 16 | client_port,
		position,
		address_is_loopback(client_address) ? boot_id ^ netns : 0,
	};

	return siphash13_words(key0, key1, words, EXCHANGE_WORDS);
}

/* The low 56 bits of the trace id of an exchange: what consistent probability sampling compares with its threshold.
 * client_address: 16 bytes in network order as two words, IPv4 as ::ffff:a.b.c.d. sequence: TCP sequence number of the
 * request's first byte. boot_id: as receiver/ids.py folds it.
 */
inline_always u64 wirespan_trace_low56(u64 key0, u64 key1, const u64 *client_address, u16 client_port, u32 sequence,
				       u64 position, u32 netns, u64 boot_id)
{
	struct siphash s =
		wirespan_exchange_hash(key0, key1, client_address, client_port, sequence, position, netns, boot_id);

	return siphash13_output(&s, 0) & ((1ULL << 56) - 1);
}

#endif
