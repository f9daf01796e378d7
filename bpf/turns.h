/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What is kept of a connection: the state of exchange.h, and what an I/O tells it.
 *
 * Who includes this file has defined struct payload, which tells where the bytes of an I/O are; of that, `none` (they are
 * not at hand) is known here.
 */
#ifndef WIRESPAN_TURNS_H
#define WIRESPAN_TURNS_H

#include "arrivals.h"
#include "record.h"
#include "resp.h"

enum phase {
	PHASE_IDLE,
	PHASE_JOINED, /* taken up in the middle of an exchange, which is none of ours */
	PHASE_REQUEST,
	PHASE_RESPONSE,
	PHASE_MESSAGE, /* response bytes that nobody asked for, if they are wanted as spans */
};

enum mode {
	MODE_NEW, /* nothing is known of it yet */
	MODE_IGNORED, /* a socket of the agent itself, or of its peer on this machine */
	MODE_FORGOTTEN, /* taken from its socket after a long silence: not to be used any more */
	MODE_TURNS,
	MODE_SEGMENTS,
};

/* What came before response bytes that no request is known for. */
enum settled {
	SETTLED_NOTHING,
	SETTLED_EXCHANGE, /* one was reported while the connection stayed open: they continue it */
	SETTLED_JOINED, /* the exchange that was under way when the connection was taken up */
};

/* Why the head of what arrives need not be kept. */
enum unwanted {
	UNWANTED_NOT, /* it is wanted */
	UNWANTED_COMPLETE, /* it goes on with a message whose head is complete */
	UNWANTED_EVER, /* nothing that follows can be read */
};

/* A send of no more is one packet, unless its beginning was noted: its start is when that packet left. */
#define TIMED_BY_PACKET 65536

/* Silence in ms after which the state of a connection is given back. */
#define FORGET_AFTER 5000

/* Bytes of a cache line, less those in which the kernel keeps a pointer of its own before a socket's storage. */
#define LINE 64
#define FIRST_LINE 56

/* Selection by process: what was looked up last, see selection.h. */
struct selected {
	u64 start_time; /* of the program image whose verdict this is */
	u32 tgid;
	u32 exec_id;
	u32 decided_at; /* the verdict holds while `verdicts_changed` is this */
	u32 found_at; /* and the requester while `requesters_changed` is this */
	u64 left_out;
};

#define TALLIED 8

enum tallied {
	TALLIED_DURATION,
	TALLIED_QUEUE,
	TALLIED_PROCESSING,
	TALLIED_TIMES,
};

/* Exchanges of one edge that are yet to be added to it, see tally.h. Times in ns. */
struct tally {
	struct process_info process;
	u32 kind; /* what else tells their edge from others of this connection */
	u8 count;
	u8 reserved[3];
	u64 request_bytes;
	u64 response_bytes;
	u64 sums[TALLIED_TIMES];
	u8 slots[TALLIED_TIMES][TALLIED]; /* of their histograms */
};

/* In an order that lets different CPUs, that of the reader and that where packets come in, write different lines. */
struct turns {
	/* Both read this line, at every look-up; it seldom changes. */
	u8 mode;
	u8 role;
	u8 by_hooks; /* sequence numbers count something else (an upper layer protocol such as kTLS): hooks alone decide */
	u8 head_unwanted; /* enum unwanted: of what arrives */
	u32 sequence[2]; /* TCP sequence number of position 0 */
	u64 socket; /* address of the struct sock */
	u64 window_wait; /* since when sending has been seen to wait for the other end's window; 0: it does not */
	u8 line_end[FIRST_LINE - 32];

	u32 locked; /* see lock.h */
	u8 phase;
	u8 protocol;
	u8 settled; /* enum settled */
	u8 interim; /* what the response is so far is an interim one, behind which the answer may have come */
	u8 hello_at; /* where in the request's head a ClientHello may begin */
	u8 end_told; /* segment mode: nothing has moved since a segment said that the connection ended */
	u64 position[2]; /* by direction: bytes accounted so far */
	u64 send_started; /* when the send under way began; 0: none, or one that its packet times */
	u64 last; /* time of the last accounted byte */
	struct command command; /* RESP: the one under way; it ends at this position */
	u64 ahead_from[2]; /* where the last bytes begin that were accounted before their own hook ran */
	struct selected selected;
	struct process_info requester; /* who sends the requests, if processes are selected: goes up in front of */
	struct exchange exchange; /* the one that collects, or the last one */
	struct tally tally;
	u8 lines_end[2 * LINE - (80 + sizeof(struct selected) + sizeof(struct process_info) + sizeof(struct exchange) +
				 sizeof(struct tally)) %
					LINE];

	struct arrivals arrivals;
};

_Static_assert((__builtin_offsetof(struct turns, arrivals) - FIRST_LINE) % LINE == 0, "arrivals begin a cache line");

/* One I/O, as a hook sees it. */
struct io {
	u64 start; /* sent: when the call began; received: when it returned */
	u64 end;
	u64 size;
	u64 position; /* of its first byte, set by the state machine */
	u8 direction;
	u8 start_unknown;
	u8 by_packet; /* it is one packet, whose departure is both times */
	struct payload payload;
};

#endif
