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

#endif
