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
	PHASE_REQUEST,
	PHASE_RESPONSE,
};

enum mode {
	MODE_TURNS,
	MODE_SEGMENTS,
	MODE_IGNORED, /* a socket of the agent itself, or of its peer on this machine */
};

/* A send that is one packet, with none before it that is unacknowledged: its start is when that packet left. */
#define TIMED_BY_PACKET 1

struct turns {
	u8 mode;
	u8 phase;
	u8 protocol;
	u8 by_hooks; /* sequence numbers count something else (an upper layer protocol such as kTLS): hooks alone decide */
	u8 settled; /* an exchange was reported while the connection stayed open: more response bytes continue it */
	u8 reserved[3];
	u32 sequence[2]; /* TCP sequence number of position 0 */
	u64 position[2]; /* by direction: bytes accounted so far */
	u64 ahead_from[2]; /* where the last bytes begin that were accounted before their own hook ran */
	u64 send_started; /* when the send under way began; 0: none, or TIMED_BY_PACKET */
	u64 last; /* time of the last accounted byte */
	struct command command; /* RESP: the one under way; it ends at this position */
	struct exchange exchange; /* the one that collects, or the last one */
	struct arrivals arrivals;
};

/* One I/O, as a hook sees it. */
struct io {
	u64 start; /* sent: when the call began; received: when it returned */
	u64 end;
	u64 size;
	u64 position; /* of its first byte, set by the state machine */
	u8 direction;
	u8 start_unknown;
	struct payload payload;
};

#endif
