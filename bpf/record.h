/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What travels from the kernel to user space: the whole ABI. User space derives its numpy dtypes from the BTF of
 * these structs, so they are written down nowhere else. All times are CLOCK_MONOTONIC in ns, 0 = unknown. All
 * positions count the bytes of one direction of a connection since it began; they never wrap.
 */
#ifndef WIRESPAN_RECORD_H
#define WIRESPAN_RECORD_H

#include "types.h"

#define IPPROTO_TCP 6
#define IPPROTO_UDP 17

enum role {
	ROLE_CLIENT = 1, /* connected: the request travels away */
	ROLE_SERVER = 2, /* accepted: the request comes in */
};

enum direction {
	DIRECTION_SENT = 0,
	DIRECTION_RECEIVED = 1,
};

enum outcome {
	OUTCOME_ANSWERED = 0,
	OUTCOME_CONNECTION_CLOSED = 1, /* ended before a response byte */
	OUTCOME_CONNECTION_RESET = 2,
	OUTCOME_TIMEOUT = 3, /* no response byte within request_timeout, or no connection */
	/* There never was a connection. */
	OUTCOME_CONNECTION_REFUSED = 4,
	OUTCOME_HOST_UNREACHABLE = 5,
	OUTCOME_NETWORK_UNREACHABLE = 6,
	OUTCOME_ADDRESS_NOT_AVAILABLE = 7, /* no local port was free */
	OUTCOME_CONNECTION_ABORTED = 8, /* given up by the application */
};

/* The protocols that the kernel tells apart: because their requests overlap (segment mode, see exchange.h), or because
 * what follows cannot be read as requests (opaque.h).
 */
enum protocol {
	PROTOCOL_UNKNOWN = 0,
	PROTOCOL_RESP = 1, /* Redis serialization protocol */
	PROTOCOL_TLS = 2, /* from a ClientHello on */
	PROTOCOL_HTTP2 = 3, /* from its preface on */
	PROTOCOL_HTTP1 = 4,
	PROTOCOL_DNS = 5,
	PROTOCOL_POSTGRESQL = 6,
	PROTOCOL_MYSQL = 7,
	PROTOCOL_MEMCACHED = 8,
};

/* Whether what follows on its connection cannot be read as requests. */
inline_always int is_opaque_protocol(u8 protocol)
{
	return protocol == PROTOCOL_TLS || protocol == PROTOCOL_HTTP2;
}

/* Where an exchange was found to have ended. */
enum context {
	CONTEXT_HOOK = 0, /* of a system call: cannot be preempted */
	CONTEXT_SOFTIRQ = 1, /* or anywhere */
	CONTEXT_ORDERED = 2, /* by user space, from one thread */
	CONTEXTS,
};

enum exchange_flag {
	FLAG_PEER_OBSERVED = 1, /* the client's socket is on this machine and observed too */
	FLAG_SEND_START_UNKNOWN = 2, /* the first byte's send time is when the call returned */
	FLAG_PIPELINED = 4, /* holds more than one request: they could not be told apart in time */
	FLAG_MESSAGE = 32, /* no exchange: response bytes that nobody asked for; position is one of their direction */
	FLAG_PEER_UNWATCHED = 16, /* the same, but it is not observed any more, see cgroups.h */
	FLAG_RESENT = 8, /* UDP: the request was sent or received more than once before its response */
};

/* Fixed for the life of a connection. Addresses are 16 bytes, IPv4 as ::ffff:a.b.c.d; ports in host order. Of UDP it is a
 * socket and one of its peers; what stands for sequence and position is in datagram.h.
 */
struct connection_info {
	u64 cookie;
	u8 local_address[16];
	u8 remote_address[16];
	u16 local_port;
	u16 remote_port;
	u32 sequence; /* TCP sequence number of position 0 of the request direction */
	u32 netns; /* inode of the network namespace */
	u8 family; /* AF_INET or AF_INET6, the family of the addresses, not of the socket */
	u8 role;
	u8 flags;
	u8 transport; /* IPPROTO_TCP or IPPROTO_UDP */
	u32 peer_tgid; /* server: of the client that connected on this machine; 0: not known */
	u8 sampling; /* of an exchange: the level by which it was kept, see sampling.h */
	u8 status; /* of an exchange, if anybody wants to know: enum status_class */
	u8 reserved[2];
};

/* The program image that read (server) or wrote (client) the request. */
struct process_info {
	u64 start_time; /* of the thread group leader, ns since boot (CLOCK_BOOTTIME) */
	u32 tgid; /* in the initial pid namespace */
	u32 exec_id; /* grows at every exec; low 32 bits of task->self_exec_id */
	u8 comm[16];
};

#define RESPONSE_HEAD 80 /* a ServerHello's cipher suite, which tells the version, is at most its 78th byte */
#define REQUEST_HEAD_SHORT 64
#define REQUEST_HEAD 256

/* One exchange. With selection by process the process_info of the client precedes it: in a server's record that of who
 * sent the request, tgid 0 if that is not known. A record whose request head fits REQUEST_HEAD_SHORT is cut there and goes
 * into the ring of short records: the request head is last for that reason.
 */
struct exchange {
	struct connection_info connection;
	struct process_info process;
	u64 position; /* of the first request byte */
	u64 arrived; /* server: first request byte, client: first response byte, in the socket's buffer */
	u64 request_start; /* first byte written (client: when the call began) or read (server) */
	u64 request_end;
	u64 response_start; /* first byte written (server: when the call began) or read (client) */
	u64 response_end;
	u64 request_size;
	u64 response_size;
	u16 request_captured; /* valid bytes of request_head */
	u16 response_captured;
	u8 outcome;
	u8 flags;
	u8 protocol;
	u8 context;
	u8 response_head[RESPONSE_HEAD];
	u8 request_head[REQUEST_HEAD];
};

#define EXCHANGE_SHORT (__builtin_offsetof(struct exchange, request_head) + REQUEST_HEAD_SHORT)

/* Bytes [begin, end) of the received direction reached the socket's buffer at time. */
struct arrival {
	u64 time;
	u64 begin;
	u64 end;
};

#define ARRIVALS 4
#define SEGMENT_PAYLOAD 16384

/* One I/O of a connection in segment mode; the first `captured` of its `size` bytes follow the header. One of size 0
 * says that no more responses will come: the connection is gone, or its end was read.
 */
struct segment {
	struct connection_info connection;
	struct process_info process;
	struct process_info requester; /* with selection by process, in requests that a server read: who sent them */
	struct arrival arrivals[ARRIVALS]; /* received direction only: what this I/O may have read; time 0: none */
	u64 position;
	u64 start; /* sent: when the call began; received: when it returned */
	u64 end;
	u64 size;
	u32 captured;
	u8 direction;
	u8 protocol;
	u16 outcome; /* of the requests that are unanswered when the connection is gone */
};

#endif
