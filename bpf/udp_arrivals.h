/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* UDP: datagrams are noted down when they arrive in a socket's queue, see datagram.h. */
#ifndef WIRESPAN_UDP_ARRIVALS_H
#define WIRESPAN_UDP_ARRIVALS_H

#include "lock.h"
#include "packet_payload.h"
#include "udp_socket.h"

inline_always void describe_addresses(struct datagram *g, const struct sk_buff *skb)
{
	u64 network = (u64)skb->head + skb->network_header, transport = (u64)skb->head + skb->transport_header;

	if ((kernel_words(network)->word[0] & 0xf0) == 0x40) {
		const struct iphdr *ip = kernel_cast(iphdr, network);

		mapped_address((u8 *)g->peer, ip->saddr);
		mapped_address((u8 *)g->local, ip->daddr);
	} else {
		const struct ipv6hdr *ip = kernel_cast(ipv6hdr, network);

		copy_address((u8 *)g->peer, &ip->saddr);
		copy_address((u8 *)g->local, &ip->daddr);
	}
	g->peer_port = __builtin_bswap16(kernel_cast(udphdr, transport)->source);
}

inline_always void clear_head(struct datagram *g)
{
	__builtin_memset(g->head, 0, sizeof(g->head));
	g->captured = 0;
}

/* Whether it still is a packet in a queue, of this socket. */
inline_always int is_queued(const struct sock *sk, const struct sk_buff *skb)
{
	u64 transport = (u64)skb->head + skb->transport_header;

	return skb->next && kernel_cast(udphdr, transport)->dest == kernel_cast(inet_sock, sk)->inet_sport;
}

/* A reader may take the packet meanwhile, and free it: then what was read of it is not to be used. */
inline_always void note_packet(const struct sock *sk, struct datagrams *d, u64 packet, u64 now)
{
	const struct sk_buff *skb = kernel_cast(sk_buff, packet);
	struct datagram *entry = next_arrival(d);
	u32 have, wanted;
	u64 address;

	d->newest = packet;
	if (unlikely(!entry)) {
		count(COUNT_DATAGRAMS_QUEUE_FULL);
		return;
	}
	entry->number = 0;
	barrier();
	entry->time = now;
	entry->size = skb->len;
	entry->flags = skb->skb_iif == LOOPBACK_IFINDEX ? DATAGRAM_LOOPED : 0;
	describe_addresses(entry, skb);
	clear_head(entry);
	wanted = skb->len < DATAGRAM_HEAD ? skb->len : DATAGRAM_HEAD;
	address = payload_at(skb, 0, &have);
	if (reads_payload() && address && have >= wanted) {
		copy_words(entry->head, address, wanted);
		entry->captured = wanted;
	}
	barrier();
	if (likely(is_queued(sk, kernel_cast(sk_buff, packet))))
		entry->number = d->arrived;
}

#define PACKETS_AT_ONCE 4

/* The packets that were put into the queue since the last notice, the newest first. The last one is not known yet, whatever
 * its address: memory is used again.
 */
inline_always u32 new_packets(struct sock *sk, const struct datagrams *d, u64 *packets)
{
	u64 head = (u64)sk + bpf_core_field_offset(struct sock, sk_receive_queue);
	u64 readers_head = (u64)sk + bpf_core_field_offset(struct udp_sock, reader_queue);
	u64 packet = (u64)untrusted(sock, sk)->sk_receive_queue.prev;
	u32 found = 0;

	if (packet == head) /* the reader has moved all to a queue of its own, and may do so while we look */
		packet = (u64)kernel_cast(udp_sock, sk)->reader_queue.prev;
#pragma unroll
	for (u32 i = 0; i < PACKETS_AT_ONCE; i++) {
		if (!packet || packet == head || packet == readers_head || (i && packet == d->newest))
			break;
		packets[i] = packet;
		found++;
		packet = (u64)kernel_cast(sk_buff, packet)->prev;
	}
	return found;
}

/* Whether the newest entry is about this packet, and not about one that had its memory before. */
inline_always int is_noted(const struct datagrams *d, u64 packet)
{
	const struct sk_buff *skb = kernel_cast(sk_buff, packet);
	u32 index = d->arrived % DATAGRAMS_QUEUED, have;
	const struct datagram *entry;
	u64 transport, payload;

	if (likely(packet != d->newest || (s64)(d->arrived - d->taken) <= 0))
		return 0;
	opaque(index);
	entry = &d->entries[index & (DATAGRAMS_QUEUED - 1)];
	transport = (u64)skb->head + skb->transport_header;
	if (entry->number != d->arrived || entry->size != skb->len ||
	    entry->peer_port != __builtin_bswap16(kernel_cast(udphdr, transport)->source))
		return 0;
	payload = payload_at(skb, 0, &have);
	return entry->captured < 8 || !payload || *(u64 *)entry->head == kernel_words(payload)->word[0];
}

inline_always void note_packets(struct sock *sk, struct udp_socket *u, u32 limit)
{
	struct datagrams *d = &u->queue;
	u64 packets[PACKETS_AT_ONCE] = {}, now;
	u32 found, unread;

	if (unlikely(d->ahead)) { /* noted down with the one before */
		d->ahead--;
		return;
	}
	now = bpf_ktime_get_ns();
	unread = unread_datagrams(sk);
	found = new_packets(sk, d, packets);
	if (found > limit)
		found = limit;
	balance(d, unread > found ? unread - found : 0, now);
	if (found && is_noted(d, packets[0]))
		return;
	if (unlikely(!found)) { /* read already */
		skip_arrival(d);
		return;
	}
	d->ahead = found - 1;
#pragma unroll
	for (u32 i = PACKETS_AT_ONCE; i-- > 0;)
		if (i < found)
			note_packet(sk, d, packets[i], now);
}

/* The port that the last datagram in the queue was sent from; anything if there is none. */
inline_always u16 latest_source(const struct sock *sk)
{
	const struct sk_buff *skb = kernel_cast(sk_buff, untrusted(sock, sk)->sk_receive_queue.prev);

	return __builtin_bswap16(kernel_cast(udphdr, (u64)skb->head + skb->transport_header)->source);
}

/* Nothing has moved yet that a hook has told of: an unconnected client may get its answer before the hook of its send. */
inline_always int may_be_selected(const struct sock *sk)
{
	return socket_is_selected(sk) || is_selected_port(latest_source(sk));
}

/* Returns whether the state was taken from the socket meanwhile. */
inline_always int note_in(struct sock *sk, struct udp_socket *u, u32 limit)
{
	if (u->mode == MODE_IGNORED || !lock(&u->noting))
		return 0;
	note_packets(sk, u, limit);
	unlock(&u->noting);
	return u->mode == MODE_FORGOTTEN;
}

static __attribute__((noinline)) int note_first_datagram(struct sock *sk)
{
	u32 unread = unread_datagrams(sk);
	struct udp_socket *u = new_udp_socket(sk, unread ? unread - 1 : 0);

	return u ? note_in(sk, u, 1) : 0;
}

/* A datagram is in the socket's queue. Runs in a softirq, or in whoever sent it. */
static __attribute__((noinline)) int note_datagram(struct sock *sk)
{
	struct udp_socket *u = udp_socket_of(sk);

	if (u && !note_in(sk, u, PACKETS_AT_ONCE))
		return 0;
	if (may_be_selected(sk) && !is_unwatched(sk))
		note_first_datagram(sk);
	return 0;
}

#endif
