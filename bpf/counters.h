/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Every way in which the kernel side drops, skips or adjusts something has a name and a counter here, and nowhere
 * else: user space reads this enum from BTF and exports each as documented in receiver/metadata.yaml.
 */
#ifndef WIRESPAN_COUNTERS_H
#define WIRESPAN_COUNTERS_H

enum counter {
	COUNT_OBSERVED, /* exchanges that ended, turn mode */
	COUNT_EXCLUDED, /* of them, left out because select leaves out their process */
	COUNT_SAMPLED_OUT, /* of them, left out by their trace id */
	COUNT_FAILED, /* of them, without an answer or with one that is an error; with a budget only */
	COUNT_DROPPED_RATE_LIMIT, /* of them, beyond the budget before the sampling had followed the load */
	COUNT_DROPPED_RING_FULL, /* of them, lost because a ring was full */
	COUNT_SEGMENTS, /* I/Os sent up in segment mode */
	COUNT_SEGMENTS_EXCLUDED, /* not sent up because select leaves out their process */
	COUNT_SEGMENTS_RING_FULL, /* of them, lost: a gap for the parser */
	COUNT_SEGMENT_BYTES_SKIPPED, /* bytes beyond SEGMENT_PAYLOAD of an I/O or without a readable buffer */
	COUNT_CONNECTIONS, /* connections that are watched */
	COUNT_ATTEMPTS_UNKNOWN, /* to connect, that are older than the agent or were too many: their failure is no span */
	COUNT_CONNECTIONS_NO_STORAGE, /* connections lost because the kernel refused socket storage */
	COUNT_CONNECTIONS_MPTCP, /* subflows of MPTCP connections: not followed */
	COUNT_CONNECTIONS_BY_HOOKS, /* an upper layer protocol (kTLS) makes sequence numbers useless: no pairs */
	COUNT_IO_UNWATCHED, /* I/Os of connections that are older than the agent and already closed for one side */
	COUNT_MESSAGES_PUSHED, /* I/Os of a server that speaks without having been asked */
	COUNT_MESSAGES_CONTINUED, /* I/Os of a response that went on after it was reported as settled */
	COUNT_MESSAGES_JOINED, /* I/Os of exchanges that were under way when their connection was taken up */
	COUNT_MESSAGES_INTERIM, /* HTTP/1.1 1xx responses: they answer nothing */
	COUNT_BYTES_BEFORE_HOOK, /* bytes accounted by position before their own hook ran, which splice never does */
	COUNT_PAYLOAD_UNAVAILABLE, /* I/Os whose bytes are neither in the queues nor in a known buffer (splice, ...) */
	COUNT_PAYLOAD_FAULT, /* user memory that could not be read */
	COUNT_CONTENDED, /* I/Os given up because the connection's lock could not be had */
	COUNT_ARRIVALS_FULL, /* arrivals not kept because ARRIVALS earlier ones were unread */
	COUNT_MESSAGES_ONE_WAY, /* that nobody answers: a client's farewell; datagrams */
	COUNT_DATAGRAMS_QUIC, /* of sockets that speak QUIC */
	COUNT_DATAGRAMS_QUEUE_FULL, /* not noted down because DATAGRAMS_QUEUED earlier ones were unread */
	COUNT_DATAGRAMS_PEER_UNKNOWN, /* that belong to no exchange because it is not known who sent them, or to whom */
	COUNT_DATAGRAMS_REQUESTS_FULL, /* requests not kept because REQUESTS others wait */
	COUNTERS,
};

#endif
