/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The first bytes of a message where the kernel has them: in the packet buffers of the socket's own queues.
 *
 * That costs a quarter of what finding and copying the application's buffer costs (docs/decisions/payload.md), cannot
 * show another file's bytes, and works whatever moves them: io_uring, sendfile and kernel threads have no registers to
 * look at. Where it does not find the bytes in one piece, user_payload.h is asked instead.
 *
 * A packet's payload is mostly not in its linear part but in pages, which have no address in `struct skb_frag`. All
 * memory is mapped at virtual = 64 * page + constant (x86-64, struct page of 64 bytes); the constant differs from boot
 * to boot and find_direct_map() learns it.
 */
#ifndef WIRESPAN_PACKET_PAYLOAD_H
#define WIRESPAN_PACKET_PAYLOAD_H

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "arrivals.h"
#include "heads.h"
#include "kernel.h"

#define BYTES_PER_BYTE_OF_PAGE 64 /* a page has 4096 bytes, its struct 64 */

/* See above; 0: not known, so that no page can be looked at. */
u64 direct_map = 0;

inline_always u64 address_of_page(u64 page)
{
	return page * BYTES_PER_BYTE_OF_PAGE + direct_map;
}

/* Where the byte `offset` of a packet's payload is, and how many follow it in one piece; 0 if that is not to be known. */
inline_always u64 payload_at(const struct sk_buff *skb, u32 offset, u32 *size)
{
	u32 linear = skb->len - skb->data_len;
	const struct skb_shared_info *shared;

	if (unlikely(offset < linear)) {
		*size = linear - offset;
		return kernel_address(skb, sk_buff, data) + offset;
	}
	offset -= linear;
	shared = kernel_cast(skb_shared_info, (u64)skb->head + skb->end);
	if (!bpf_core_field_exists(struct skb_frag, netmem)) /* Linux 6.9 */
		return 0;
	if (unlikely(!direct_map || !shared->nr_frags || offset >= shared->frags[0].len || shared->frags[0].netmem & 1))
		return 0; /* the bit: memory of a device (6.12) */
	*size = shared->frags[0].len - offset;
	return address_of_page(shared->frags[0].netmem) + shared->frags[0].offset + offset;
}

#define COPIED_AT_ONCE (8 * WORDS)

/* Copies `size` <= COPIED_AT_ONCE bytes of kernel memory as words; zeros fill the last one. */
inline_always void copy_words(u8 *to, u64 from, u32 size)
{
	const struct words *words = kernel_words(from);
	u64 *word = (u64 *)to;

#pragma unroll
	for (u32 i = 0; i < WORDS; i++) {
		if (i * 8 >= size)
			break;
		word[i] = words->word[i];
	}
	if (size & 7)
		word[size >> 3 & 7] &= ~0ull >> (64 - 8 * (size & 7));
}

/* What a head of `size` <= REQUEST_HEAD bytes has beyond COPIED_AT_ONCE. A function of its own, and not static: the
 * verifier then looks at it once.
 */
__attribute__((noinline)) u32 copy_rest(struct head *to, u64 from, u32 size)
{
	if (!to)
		return 0;
	for (u32 at = COPIED_AT_ONCE; at <= REQUEST_HEAD - COPIED_AT_ONCE; at += COPIED_AT_ONCE) {
		if (at >= size)
			break;
		copy_words(to->bytes + at, from + at, size - at < COPIED_AT_ONCE ? size - at : COPIED_AT_ONCE);
	}
	return size;
}

/* Copies `size` <= limit bytes of a head with that limit: more than HEAD_PROBE only if its beginning is worth it. */
inline_always u32 copy_packet_head(u8 *to, u64 from, u32 size, u32 limit)
{
	u32 first = size < COPIED_AT_ONCE ? size : COPIED_AT_ONCE;

	copy_words(to, from, first);
	if (likely(size <= HEAD_PROBE) || !is_worth_more(to[0], limit))
		return first;
	return copy_rest((struct head *)to, from, size);
}

/* Keeps the first bytes of what arrived: the received bytes from `from` to `received_to`, the first of which has the
 * sequence number `sequence`. Runs under the socket's lock, so the packet stays where it is.
 */
inline_always void keep_arrived_head(struct arrivals *a, struct sock *sk, u64 from, u64 received_to, u32 sequence,
				     u32 limit)
{
	const struct sk_buff *skb = kernel_cast(sk_buff, untrusted(sock, sk)->sk_receive_queue.prev);
	u32 size, wanted = received_to - from < limit ? received_to - from : limit;
	u32 offset = sequence - tcp_skb_cb(skb)->seq;
	u64 address;

	if (unlikely((u64)skb == (u64)&sk->sk_receive_queue || offset >= skb->len))
		return;
	address = payload_at(skb, offset, &size);
	if (unlikely(!address || size < wanted))
		return;
	a->head_captured = 0; /* a reader that was late must not take new bytes for old ones */
	barrier();
	a->head_begin = from;
	size = copy_packet_head(a->head, address, wanted, limit);
	barrier();
	a->head_captured = size;
}

/* Of memory that is not known to be aligned, as here, __builtin_memcpy() would copy byte by byte. */
inline_always void copy_aligned(u8 *to, const u8 *from, u32 size)
{
	for (u32 i = 0; i < size / 8; i++) {
		((u64 *)to)[i] = ((const u64 *)from)[i];
		barrier(); /* else all are loaded first, for which there are no registers */
	}
}

/* Copies the received bytes at `position`, of which an I/O took `size`, to a head with that much room; how many, 0 if
 * not all that are wanted were kept.
 */
inline_always u32 copy_arrived_head(const struct arrivals *a, u64 position, u64 size, u8 *to, u32 room)
{
	u32 captured = a->head_captured, wanted = size < room ? size : room;

	if (a->head_begin != position || !captured || captured > room)
		return 0;
	if (captured < wanted && (captured != HEAD_PROBE || is_worth_more(a->head[0], room)))
		return 0;
	if (captured < wanted)
		wanted = captured;
	if (room == REQUEST_HEAD && wanted > COPIED_AT_ONCE)
		copy_aligned(to, a->head, REQUEST_HEAD);
	else if (unlikely(wanted > COPIED_AT_ONCE))
		copy_aligned(to, a->head, RESPONSE_HEAD);
	else
		copy_aligned(to, a->head, COPIED_AT_ONCE);
	barrier();
	return a->head_captured == captured && a->head_begin == position ? wanted : 0;
}

/* Copies the sent bytes from `sequence` on, which an I/O of `size` bytes began with, to a head; how many, and in *left when
 * their packet left if it begins with them. 0 if they are not at the root of the retransmission queue (sent, not
 * acknowledged, and few others with them) in one piece; *left means nothing then.
 *
 * The hook runs without the socket's lock, so an acknowledgment may free the packet meanwhile. It takes it out of the
 * queue first, and moves snd_una before it trims one: both are looked at again when the bytes were copied.
 */
inline_always u32 copy_sent_head(struct sock *sk, u32 sequence, u64 size, u8 *to, u32 room, u64 *left)
{
	struct rb_node *root = untrusted(sock, sk)->tcp_rtx_queue.rb_node;
	const struct sk_buff *skb;
	u32 have, first, offset, wanted = size < room ? size : room;
	u64 address;

	if (unlikely(!root))
		return 0;
	skb = kernel_cast(sk_buff, root);
	first = tcp_skb_cb(skb)->seq;
	offset = sequence - first;
	if (unlikely(offset >= skb->len))
		return 0;
	address = payload_at(skb, offset, &have);
	if (unlikely(!address || have < wanted))
		return 0;
	wanted = copy_packet_head(to, address, wanted, room);
	*left = offset ? 0 : skb->skb_mstamp_ns;
	barrier();
	if (untrusted(sock, sk)->tcp_rtx_queue.rb_node != root || tcp_skb_cb(skb)->seq != first ||
	    (s32)(kernel_cast(tcp_sock, sk)->snd_una - first) > 0)
		return 0;
	return wanted;
}

#endif
