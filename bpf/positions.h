/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* How far a socket's two byte streams have moved, by its sequence numbers. A FIN counts as a byte in these. */
#ifndef WIRESPAN_POSITIONS_H
#define WIRESPAN_POSITIONS_H

#include "kernel.h"
#include "record.h"

/* Whether a FIN has been queued for sending, if the sending side is shut down. */
inline_always int is_closing(u8 state)
{
	return (state >= TCP_FIN_WAIT1 && state <= TCP_CLOSE) || state == TCP_LAST_ACK || state == TCP_CLOSING;
}

/* A FIN was received. */
inline_always int has_fin(const struct sock *sk)
{
	return sk->__sk_common.skc_flags >> SOCK_DONE & 1;
}

/* Payload bytes that have reached the socket's buffer since the connection began. */
inline_always u64 received_payload(const struct sock *sk, const struct tcp_sock *tp)
{
	return tp->bytes_received - has_fin(sk);
}

/* Of them, those that nobody has read. */
inline_always u32 unread_payload(const struct sock *sk, const struct tcp_sock *tp)
{
	u32 unread = tp->rcv_nxt - tp->copied_seq;

	return unread ? unread - has_fin(sk) : 0;
}

/* A FIN was queued for sending. */
inline_always int has_sent_fin(const struct sock *sk)
{
	return sk->sk_shutdown & SEND_SHUTDOWN && is_closing(sk->__sk_common.skc_state);
}

/* Payload bytes that were handed to the socket since the connection began. The connecting end counts its SYN as acked. */
inline_always u64 sent_payload(const struct sock *sk, const struct tcp_sock *tp, u8 role)
{
	return tp->bytes_acked - (role == ROLE_CLIENT) + (u32)(tp->write_seq - tp->snd_una) - has_sent_fin(sk);
}

/* tcp_disconnect() has cleared the counters, and moved write_seq on: by SO_LINGER with 0 s, or connect() to AF_UNSPEC. */
inline_always int is_disconnected(const struct tcp_sock *tp)
{
	return !tp->bytes_received && !tp->bytes_acked;
}

/* By direction, the sequence number behind the last byte that moved, without FIN. */
inline_always void next_sequences(struct sock *sk, struct tcp_sock *tp, u32 *sequence)
{
	u32 copied = tp->copied_seq;

	sequence[DIRECTION_SENT] = tp->write_seq - has_sent_fin(sk);
	sequence[DIRECTION_RECEIVED] = copied - (has_fin(sk) && copied == tp->rcv_nxt);
}

/* How far both streams have moved: payload by direction, and the sequence numbers behind it. */
struct streams {
	u64 sent;
	u64 received;
	u32 sequence[2];
};

inline_always struct streams streams_now(struct sock *sk, struct tcp_sock *tp, u8 role)
{
	struct streams s;

	s.sent = sent_payload(sk, tp, role);
	s.received = received_payload(sk, tp) - unread_payload(sk, tp);
	next_sequences(sk, tp, s.sequence);
	return s;
}

#define READS 4

/* The same without the socket's lock: a packet that comes in meanwhile changes one field after the other, so two readings
 * have to agree.
 */
inline_always struct streams read_streams(struct sock *sk, struct tcp_sock *tp, u8 role)
{
	struct streams s = streams_now(sk, tp, role), again;

#pragma unroll
	for (u32 i = 1; i < READS; i++) {
		barrier();
		again = streams_now(sk, tp, role);
		if (likely(again.sent == s.sent && again.received == s.received && again.sequence[0] == s.sequence[0] &&
			   again.sequence[1] == s.sequence[1]))
			break;
		s = again;
	}
	return s;
}

#endif
