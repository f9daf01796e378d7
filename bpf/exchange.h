/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The exchange state machine: I/Os of one socket in, finished exchanges out.
 *
 * Plain C without kernel calls: the BPF programs run it under the connection's lock, the unit tests compile it on
 * the host. Request bytes travel to the server, response bytes back; the turn of direction delimits exchanges:
 *
 *   IDLE --request bytes--> REQUEST --response bytes--> RESPONSE --request bytes--> (finish, next REQUEST)
 *                                                          '-- end of stream, destroyed, quiet --> (finish)
 *
 * Order and sizes are decided by positions, not by hooks: the hook of a call runs after its socket lock was dropped,
 * so with a writer and a reader thread the response's hook may run before its request's, and some bytes move without
 * any hook (splice from a socket). What the kernel's sequence numbers say has moved is the truth. An I/O first accounts
 * what came before it (unseen.h).
 *
 * A connection that is older than the agent may be taken up in the middle of an exchange. That one is passed over: in
 * PHASE_JOINED nothing begins before the turn of direction.
 *
 * Response bytes without a request are a message: counted, and if they are wanted as spans, collected as an exchange without
 * a request is, up to the next request, the end, or quiet.
 *
 * Turns cannot delimit pipelined requests. When the bytes of one turn hold more than one Redis command the
 * connection changes to segment mode for good: each I/O goes up with its position and user space pairs.
 *
 * Who includes this file brings the functions declared below, and struct payload (turns.h).
 */
#ifndef WIRESPAN_EXCHANGE_H
#define WIRESPAN_EXCHANGE_H

#include "counters.h"
#include "opaque.h"
#include "status.h"
#include "turns.h"

/* Copies the first bytes of the I/O, or some of them, to a head of `limit` bytes, and says in *captured how many. The
 * packet that has them may tell io->start more exactly.
 */
inline_always void copy_head(struct turns *t, struct io *io, u8 *head, u16 *captured, u32 limit);
/* The same behind the `*captured` bytes that the head has already. */
inline_always void copy_more(const struct io *io, u8 *head, u16 *captured, u32 limit);
/* When the oldest packet that is unacknowledged left, or the last one that was acknowledged; 0 where the beginning of a send
 * is never noted.
 */
inline_always u64 first_transmission(const struct io *io);
/* Who runs now, the process of the request. */
inline_always void describe_process(struct process_info *process);
/* t->exchange is finished. quietly: where only static functions may be called. */
inline_always void output_exchange(struct turns *t, int quietly);
/* The request bytes in t->exchange go up as a segment. */
inline_always void output_pending(struct turns *t);
inline_always void count(enum counter which);
/* Whether messages become spans. */
inline_always int wants_messages(void);
/* ns of silence after which a response is complete. */
inline_always u64 silence(void);
/* Whether it matters what became of a request. */
inline_always int wants_status(void);
inline_always void count_many(enum counter which, u64 amount);

inline_always u8 request_direction(const struct turns *t)
{
	return t->role == ROLE_CLIENT ? DIRECTION_SENT : DIRECTION_RECEIVED;
}

inline_always void finish_here(struct turns *t, u8 outcome, int quietly)
{
	struct connection_info *connection = &t->exchange.connection;
	int is_message = t->phase == PHASE_MESSAGE;

	t->exchange.outcome = outcome;
	t->exchange.protocol = t->protocol;
	if (wants_status())
		tell(&t->exchange);
	t->phase = PHASE_IDLE;
	if (unlikely(is_message)) /* both ends make its ids of where it begins in its own direction */
		connection->sequence = t->sequence[!request_direction(t)];
	output_exchange(t, quietly);
	if (unlikely(is_message))
		connection->sequence = t->sequence[request_direction(t)];
}

/* A function of its own, and not static: the verifier then looks at it once. */
__attribute__((noinline)) int finish(struct turns *t, u8 outcome)
{
	if (t)
		finish_here(t, outcome, 0);
	return 0;
}

/* What is under way has been silent for so long that it is complete; the connection stays open. */
inline_always void finish_settled(struct turns *t)
{
	int is_exchange = t->phase == PHASE_RESPONSE;

	finish(t, OUTCOME_ANSWERED);
	if (is_exchange)
		t->settled = SETTLED_EXCHANGE;
}

/* A head continues over as many I/Os as it takes (a 4-byte header may be read on its own) while nothing is missing. */
inline_always void continue_head(struct turns *t, const struct io *io, u8 *head, u16 *captured, u64 size, u32 limit)
{
	if (unlikely(*captured == size && *captured < limit))
		copy_more(io, head, captured, limit);
	else if (io->direction == DIRECTION_RECEIVED && !t->head_unwanted)
		t->head_unwanted = UNWANTED_COMPLETE;
}

/* A message begins that is sent: what arrives next begins the other side's. */
inline_always void want_head(struct turns *t, const struct io *io)
{
	if (io->direction == DIRECTION_SENT && t->head_unwanted == UNWANTED_COMPLETE)
		t->head_unwanted = UNWANTED_NOT;
}

inline_always void begin(struct turns *t, const struct io *io, u64 arrived, u8 flags)
{
	struct exchange *x = &t->exchange;

	want_head(t, io);
	describe_process(&x->process);
	x->position = io->position;
	x->arrived = arrived;
	x->request_start = io->start;
	x->response_start = 0;
	x->response_end = 0;
	x->request_size = 0;
	x->response_size = 0;
	x->response_captured = 0;
	x->context = CONTEXT_HOOK;
	x->flags = x->connection.flags | flags | (io->start_unknown ? FLAG_SEND_START_UNKNOWN : 0);
	t->phase = PHASE_REQUEST;
	t->settled = SETTLED_NOTHING;
	t->interim = 0;
}

/* From now on every I/O goes up. */
inline_always int change_to_segments(struct turns *t)
{
	t->phase = PHASE_IDLE;
	t->mode = MODE_SEGMENTS;
	return 1;
}

/* Where the command ends that the first I/O of a request begins, if it is one: the position t->command.end. */
inline_always enum command_end find_command_end(struct turns *t, const struct io *io)
{
	const struct exchange *x = &t->exchange;
	enum command_end found = COMMAND_NONE;

	if (x->request_captured >= 4 && x->request_head[0] == '*')
		found = resp_command_end((const struct head *)x->request_head, x->request_captured, &t->command);
	t->protocol = found == COMMAND_NONE ? PROTOCOL_UNKNOWN : PROTOCOL_RESP;
	t->command.end += io->position;
	return found;
}

inline_always int exceeds_command(const struct turns *t, const struct io *io)
{
	return io->position + io->size > t->command.end;
}

/* The head of a request that begins. Returns whether it is one of a pipeline. */
inline_always int begin_head(struct turns *t, struct io *io)
{
	struct exchange *x = &t->exchange;
	enum command_end found;

	if (unlikely(is_opaque(t))) {
		x->request_captured = 0;
		if (t->head_unwanted != UNWANTED_EVER) /* its cache line is others', too */
			t->head_unwanted = UNWANTED_EVER;
		return 0;
	}
	t->hello_at = 0;
	copy_head(t, io, x->request_head, &x->request_captured, REQUEST_HEAD);
	found = find_command_end(t, io);
	return found == COMMAND_END_UNKNOWN || (found == COMMAND_END_KNOWN && exceeds_command(t, io));
}

/* A head grew behind its first `before` bytes. Where TLS begins within a turn (MySQL), so does an I/O. */
inline_always void recognise_more(struct turns *t, u32 before)
{
	if (!is_opaque(t) && before <= HELLO_AT_LIMIT &&
	    t->exchange.request_head[before & HELLO_AT_LIMIT] == TLS_HANDSHAKE)
		t->hello_at = before;
	recognise(t);
}

/* FLAG_PIPELINED if a server had this request in its buffer before it began to answer the last one: whoever sent it had not
 * waited. A message that takes several arrivals is read before it is answered, so it is none of these.
 */
inline_always u8 pipelined(const struct turns *t, u64 arrived)
{
	const struct exchange *x = &t->exchange;

	return arrived && arrived < x->response_start && !(x->flags & FLAG_SEND_START_UNKNOWN) ? FLAG_PIPELINED : 0;
}

/* Returns 1 if the I/O goes up as a segment instead: more than one command is under way, or one whose end is not known. */
inline_always int account_request(struct turns *t, struct io *io)
{
	struct exchange *x = &t->exchange;
	u64 arrived = 0;
	u8 flags = 0;
	u32 before;

	if (unlikely(t->phase == PHASE_JOINED)) {
		count(COUNT_MESSAGES_JOINED);
		return 0;
	}
	/* A send that began before the first response byte arrived is still the same request (an early response); if that
	 * arrival was not kept, it begins another one.
	 */
	if (io->direction == DIRECTION_RECEIVED && t->phase != PHASE_REQUEST)
		arrived = arrival_of(&t->arrivals, io->position);
	if (t->phase == PHASE_RESPONSE && !(io->direction == DIRECTION_SENT && io->start < x->arrived)) {
		flags = pipelined(t, arrived);
		x->flags |= flags;
		finish(t, OUTCOME_ANSWERED);
	} else if (unlikely(t->phase == PHASE_MESSAGE)) {
		finish(t, OUTCOME_ANSWERED);
	}
	if (t->phase == PHASE_IDLE) {
		if (begin_head(t, io))
			return change_to_segments(t);
		begin(t, io, arrived, flags);
		recognise(t);
	} else {
		if (t->phase == PHASE_REQUEST && t->protocol == PROTOCOL_RESP && exceeds_command(t, io)) {
			output_pending(t);
			return change_to_segments(t);
		}
		before = x->request_captured;
		continue_head(t, io, x->request_head, &x->request_captured, x->request_size, REQUEST_HEAD);
		if (unlikely(x->request_captured != before))
			recognise_more(t, before);
	}
	x->request_size += io->size;
	x->request_end = io->end;
	return 0;
}

enum interim {
	INTERIM_NOT,
	INTERIM_ALONE, /* the answer is still to come */
	INTERIM_LONG, /* its head is longer than what is at hand: the answer may follow in the same I/O */
};

#define CRLF_CRLF 0x0a0d0a0d /* as it lies in memory on a little-endian machine */

/* "HTTP/1.x 1nn" but for 101 (RFC 9110 15.2). What follows its head in the same I/O is the answer. */
inline_always enum interim is_interim_response(const u8 *h, const struct io *io, u32 captured)
{
	if (likely(captured < 12 || h[0] != 'H' || h[9] != '1' || h[8] != ' '))
		return INTERIM_NOT;
	if (h[1] != 'T' || h[2] != 'T' || h[3] != 'P' || h[4] != '/' || h[5] != '1' || (h[10] == '0' && h[11] == '1'))
		return INTERIM_NOT;
	for (u32 end = 16; end <= RESPONSE_HEAD; end++) {
		if (end > captured)
			break;
		if (little_endian_32(h + end - 4) == CRLF_CRLF)
			return end == io->size ? INTERIM_ALONE : INTERIM_NOT;
	}
	return INTERIM_LONG;
}

inline_always void begin_response(struct turns *t, struct io *io)
{
	struct exchange *x = &t->exchange;

	x->response_start = io->start;
	x->response_size = 0;
	if (io->start_unknown)
		x->flags |= FLAG_SEND_START_UNKNOWN;
	if (io->direction == DIRECTION_RECEIVED)
		x->arrived = arrival_of(&t->arrivals, io->position);
	want_head(t, io);
	t->phase = PHASE_RESPONSE;
}

inline_always void begin_message(struct turns *t, const struct io *io)
{
	struct exchange *x = &t->exchange;

	describe_process(&x->process);
	x->position = io->position;
	x->arrived = io->direction == DIRECTION_RECEIVED ? arrival_of(&t->arrivals, io->position) : 0;
	x->request_start = x->request_end = x->response_start = io->start;
	x->request_size = 0;
	x->response_size = 0;
	x->request_captured = 0;
	x->response_captured = 0;
	x->context = CONTEXT_HOOK;
	x->flags = x->connection.flags | FLAG_MESSAGE | (io->start_unknown ? FLAG_SEND_START_UNKNOWN : 0);
	t->interim = 0;
	t->phase = PHASE_MESSAGE;
}

/* Counts response bytes that no request is known for. Returns whether they begin a message that is wanted. */
inline_always int is_wanted_message(struct turns *t)
{
	if (t->phase == PHASE_JOINED)
		t->settled = SETTLED_JOINED;
	t->phase = PHASE_IDLE;
	count(t->settled == SETTLED_EXCHANGE ? COUNT_MESSAGES_CONTINUED
	      : t->settled == SETTLED_JOINED ? COUNT_MESSAGES_JOINED
					     : COUNT_MESSAGES_PUSHED);
	return wants_messages() && t->settled != SETTLED_JOINED;
}

/* What has been said so far was complete if nothing came for `silence` ns before what comes now, though on_quiet() has not found it so
 * yet. began: of what comes, if it is sent. A function of its own, and not static: the verifier then looks at it once.
 */
__attribute__((noinline)) int finish_if_silent(struct turns *t, u8 direction, u64 position, u64 began)
{
	if (!t || t->interim)
		return 0;
	if (direction == DIRECTION_RECEIVED)
		began = arrival_of(&t->arrivals, position);
	if (began >= t->last + silence())
		finish_settled(t);
	return 0;
}

inline_always int account_response(struct turns *t, struct io *io)
{
	struct exchange *x = &t->exchange;
	enum interim interim;

	if (unlikely(t->phase <= PHASE_JOINED)) {
		if (!is_wanted_message(t))
			return 0;
		begin_message(t, io);
	} else if (t->phase == PHASE_REQUEST || unlikely(t->interim)) {
		if (unlikely(is_opaque(t) && !x->request_captured))
			x->response_captured = 0;
		else
			copy_head(t, io, x->response_head, &x->response_captured, RESPONSE_HEAD);
		interim = is_interim_response(x->response_head, io, x->response_captured);
		t->interim = interim == INTERIM_LONG;
		if (unlikely(interim))
			count(COUNT_MESSAGES_INTERIM);
		if (interim == INTERIM_ALONE) {
			x->response_captured = 0;
			return 0;
		}
		begin_response(t, io);
	} else {
		continue_head(t, io, x->response_head, &x->response_captured, x->response_size, RESPONSE_HEAD);
	}
	x->response_size += io->size;
	x->response_end = io->end;
	return 0;
}

/* The bytes of an I/O are the next of their direction. Returns 1 if it goes up as a segment at io->position. */
inline_always int account(struct turns *t, struct io *io)
{
	u8 direction = io->direction;
	int segment;

	io->position = t->position[direction];
	if (direction == request_direction(t)) {
		segment = account_request(t, io);
	} else {
		if (t->phase >= PHASE_RESPONSE && unlikely(io->start >= t->last + silence()))
			finish_if_silent(t, direction, io->position, io->start);
		segment = account_response(t, io);
	}
	t->position[direction] = io->position + io->size;
	t->last = io->end;
	return segment;
}

#endif
