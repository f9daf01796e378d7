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
 * what came before it; a late hook finds its bytes accounted and only fills in the payload; bytes without a hook join
 * the turn without payload.
 *
 * A socket has two slots: a finished exchange is output from one, outside of the lock, while the next one is
 * collected in the other. Payload is copied into its place before the lock is taken: helpers cannot be called under
 * it, and what is in the heads decides.
 *
 * Turns cannot delimit pipelined requests. When the bytes of one turn hold more than one Redis command the
 * connection changes to segment mode for good: each I/O goes up with its position and user space pairs.
 */
#ifndef WIRESPAN_EXCHANGE_H
#define WIRESPAN_EXCHANGE_H

#include "record.h"

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

/* The size of a command that starts an I/O: 0 = it is no RESP command. */
#define COMMAND_SIZE_UNKNOWN (~0ull)

struct turns {
	u8 mode;
	u8 phase;
	u8 current; /* slot that collects */
	u8 emitting[2]; /* the slot is being output */
	u8 protocol;
	u8 by_hooks; /* sequence numbers count something else (an upper layer protocol such as kTLS): hooks alone decide */
	u8 settled; /* an exchange was reported while the connection stayed open: more response bytes continue it */
	u64 position[2]; /* by direction: bytes accounted so far */
	u64 ahead_from[2]; /* where the last bytes begin that were accounted before their own hook ran */
	u32 sequence[2]; /* TCP sequence number of position 0 */
	u64 send_started; /* when the send under way began; 0: none */
	u64 last; /* time of the last accounted byte */
	u64 command_end; /* RESP: position at which the command under way ends */
	u64 arrived_to; /* received bytes that arrivals have accounted for */
	/* One producer (the kernel tells of arrivals under the socket's lock), consumers under our lock: no common lock. */
	u32 arrivals_written;
	u32 arrivals_read;
	struct arrival arrivals[ARRIVALS];
	struct exchange slots[2];
};

#define HEAD_REQUEST 1
#define HEAD_RESPONSE 2

struct head_place {
	u8 side;
	u8 slot;
	u16 at;
};

/* One I/O, as a hook sees it. */
struct io {
	u64 start; /* sent: when the call began; received: when it returned */
	u64 end;
	u64 size;
	u64 command_size; /* request direction, see COMMAND_SIZE_UNKNOWN */
	struct head_place place; /* where the first `captured` bytes are */
	u32 captured;
	u8 start_unknown;
	struct process_info process;
};

/* What a hook has to do after it released the lock. */
struct effects {
	u8 finished; /* 1 + slot to output */
	u8 contended; /* an exchange was lost: both slots in use */
	u8 pushed; /* the I/O belongs to no exchange */
	u8 continued;
	u8 interim;
	u8 segment; /* this I/O goes up as a segment at `position` */
	u8 pending; /* 1 + slot whose request bytes go up as a segment first */
	u64 position;
	u64 early; /* bytes accounted before their hook */
};

inline_always u8 request_direction(const struct turns *t)
{
	return t->slots[0].connection.role == ROLE_CLIENT ? DIRECTION_SENT : DIRECTION_RECEIVED;
}

inline_always u64 least(u64 a, u64 b)
{
	return a < b ? a : b;
}

inline_always u64 greatest(u64 a, u64 b)
{
	return a > b ? a : b;
}

/* Where the first bytes of an I/O belong, if it starts or continues a head: they are copied there before the lock is
 * taken, and count once the state machine has found them in their place. `late`: its bytes were accounted already.
 * Returns 0 if they are not wanted. A head
 * continues over as many I/Os as it takes (a 4-byte header may be read on its own) while nothing is missing in between.
 */
inline_always int predict_head(const struct turns *t, u8 direction, int late, struct head_place *place)
{
	int is_request = direction == request_direction(t);
	const struct exchange *x;

	place->side = is_request ? HEAD_REQUEST : HEAD_RESPONSE;
	place->slot = t->current & 1;
	x = &t->slots[place->slot];
	if (is_request) {
		if (late) {
			place->at = 0;
			return t->phase != PHASE_IDLE && !x->request_captured;
		}
		if (t->phase == PHASE_REQUEST) {
			place->at = x->request_captured;
			return place->at == x->request_size && place->at < REQUEST_HEAD;
		}
		place->at = 0;
		if (t->phase == PHASE_RESPONSE)
			place->slot ^= 1;
		return !t->emitting[place->slot & 1];
	}
	place->at = t->phase == PHASE_RESPONSE ? x->response_captured : 0;
	if (late)
		return t->phase == PHASE_RESPONSE && !place->at;
	if (t->phase == PHASE_RESPONSE)
		return place->at == x->response_size && place->at < RESPONSE_HEAD;
	return !t->emitting[place->slot & 1]; /* in IDLE its request may be about to be accounted ahead */
}

/* The bytes that were copied to io->place are the next of the head that has `have` of its message's `offset`. */
inline_always u16 keep_head(const struct turns *t, u8 side, u16 have, u64 offset, const struct io *io)
{
	if (io->captured && io->place.side == side && io->place.slot == (t->current & 1) && io->place.at == have &&
	    offset == have)
		return have + io->captured;
	return have;
}

inline_always void finish(struct turns *t, u8 outcome, struct effects *fx)
{
	u8 slot = t->current & 1;

	t->slots[slot].outcome = outcome;
	fx->finished = 1 + slot;
	t->emitting[slot] = 1;
	t->current = slot ^ 1;
	t->phase = PHASE_IDLE;
}

/* Time at which the received byte at `position` reached the socket's buffer; 0 if that was not kept. */
inline_always u64 arrival_of(const struct turns *t, u64 position)
{
	u32 read = t->arrivals_read, written = t->arrivals_written;

	for (u32 i = 0; i < ARRIVALS; i++) {
		const struct arrival *a = &t->arrivals[(read + i) & (ARRIVALS - 1)];
		if (read + i == written)
			return 0;
		if (a->begin <= position && position < a->end)
			return a->time;
	}
	return 0;
}

/* Forget arrivals that were read completely. */
inline_always void drop_arrivals(struct turns *t)
{
	u32 read = t->arrivals_read, written = t->arrivals_written;

	for (u32 i = 0; i < ARRIVALS; i++) {
		if (read == written || t->arrivals[read & (ARRIVALS - 1)].end > t->position[DIRECTION_RECEIVED])
			break;
		read++;
	}
	t->arrivals_read = read;
}

/* Hand the arrivals that a segment may have read to its record, oldest first, and forget those it did read. */
inline_always void take_arrivals(struct turns *t, struct arrival *to)
{
#pragma unroll
	for (u32 i = 0; i < ARRIVALS; i++) {
		to[i] = t->arrivals[(t->arrivals_read + i) & (ARRIVALS - 1)];
		if (i >= t->arrivals_written - t->arrivals_read)
			to[i].time = 0;
	}
	drop_arrivals(t);
}

inline_always void begin(struct turns *t, u8 direction, const struct io *io, struct effects *fx)
{
	struct exchange *x = &t->slots[t->current & 1];

	if (t->emitting[t->current & 1]) {
		fx->contended = 1;
		return;
	}
	x->process = io->process;
	x->position = t->position[direction];
	x->arrived = direction == DIRECTION_RECEIVED ? arrival_of(t, x->position) : 0;
	x->request_start = io->start;
	x->response_start = 0;
	x->response_end = 0;
	x->request_size = 0;
	x->response_size = 0;
	x->request_captured = 0;
	x->response_captured = 0;
	x->flags = x->connection.flags | (io->start_unknown ? FLAG_SEND_START_UNKNOWN : 0);
	t->phase = PHASE_REQUEST;
	t->settled = 0;
}

/* From now on every I/O goes up. Request bytes of an unanswered turn go first. */
inline_always void change_to_segments(struct turns *t, u8 direction, struct effects *fx)
{
	if (t->phase == PHASE_REQUEST) {
		fx->pending = 1 + (t->current & 1);
		t->emitting[t->current & 1] = 1;
	}
	t->phase = PHASE_IDLE;
	t->mode = MODE_SEGMENTS;
	fx->segment = 1;
	fx->position = t->position[direction];
}

/* Whether the request bytes at hand show that requests overlap: one turn holds more than one command, or a command
 * whose end its first bytes do not tell.
 */
inline_always int overlaps(struct turns *t, u64 position, const struct io *io)
{
	if (t->phase != PHASE_REQUEST) {
		t->protocol = io->command_size ? PROTOCOL_RESP : PROTOCOL_UNKNOWN;
		if (!io->command_size)
			return 0;
		if (io->command_size == COMMAND_SIZE_UNKNOWN)
			return 1;
		t->command_end = position + io->command_size;
	}
	return t->protocol == PROTOCOL_RESP && position + io->size > t->command_end;
}

inline_always void account_request(struct turns *t, u8 direction, const struct io *io, struct effects *fx)
{
	struct exchange *x = &t->slots[t->current & 1];

	/* A send that began before the first response byte arrived is still the same request (an early response). */
	if (t->phase == PHASE_RESPONSE && !(direction == DIRECTION_SENT && io->start < x->arrived))
		finish(t, OUTCOME_ANSWERED, fx);
	if (t->phase != PHASE_RESPONSE && overlaps(t, t->position[direction], io)) {
		change_to_segments(t, direction, fx);
		return;
	}
	if (t->phase == PHASE_IDLE) {
		begin(t, direction, io, fx);
		if (t->phase == PHASE_IDLE)
			return;
	}
	x = &t->slots[t->current & 1];
	x->request_captured = keep_head(t, HEAD_REQUEST, x->request_captured, x->request_size, io);
	x->request_size += io->size;
	x->request_end = io->end;
}

#define INTERIM_MAX 1024
#define INTERIM_BARE 25 /* "HTTP/1.1 100 Continue\r\n\r\n" */

/* "HTTP/1.x 1nn" but for 101 (RFC 9110 15.2): the answer is still to come, unless it follows in the same I/O. */
inline_always int is_interim_response(const struct turns *t, const struct io *io)
{
	const u8 *h = t->slots[io->place.slot & 1].response_head;

	if (io->captured < 12 || io->place.side != HEAD_RESPONSE || io->place.at || io->size > INTERIM_MAX)
		return 0;
	if (h[0] != 'H' || h[1] != 'T' || h[2] != 'T' || h[3] != 'P' || h[4] != '/' || h[5] != '1' || h[8] != ' ' ||
	    h[9] != '1' || (h[10] == '0' && h[11] == '1'))
		return 0;
	return io->captured < INTERIM_BARE + 4 || h[INTERIM_BARE] != 'H' || h[INTERIM_BARE + 1] != 'T' ||
	       h[INTERIM_BARE + 2] != 'T' || h[INTERIM_BARE + 3] != 'P';
}

inline_always void account_response(struct turns *t, u8 direction, const struct io *io, struct effects *fx)
{
	struct exchange *x = &t->slots[t->current & 1];

	if (t->phase == PHASE_IDLE) {
		if (t->settled)
			fx->continued = 1;
		else
			fx->pushed = 1;
		return;
	}
	if (t->phase == PHASE_REQUEST) {
		if (is_interim_response(t, io)) {
			fx->interim = 1;
			return;
		}
		x->response_start = io->start;
		if (io->start_unknown)
			x->flags |= FLAG_SEND_START_UNKNOWN;
		if (direction == DIRECTION_RECEIVED)
			x->arrived = arrival_of(t, t->position[direction]);
		t->phase = PHASE_RESPONSE;
	}
	x->response_captured = keep_head(t, HEAD_RESPONSE, x->response_captured, x->response_size, io);
	x->response_size += io->size;
	x->response_end = io->end;
}

/* `io->size` bytes moved in `direction`. Not inlined, and not static: the verifier then looks at it once. */
__attribute__((noinline)) int account(struct turns *t, u8 direction, const struct io *io, struct effects *fx)
{
	if (!t || !io || !fx)
		return 0;
	direction &= 1;
	if (direction == request_direction(t))
		account_request(t, direction, io, fx);
	else
		account_response(t, direction, io, fx);
	t->position[direction] += io->size;
	t->last = io->end;
	if (direction == DIRECTION_RECEIVED && !fx->segment) /* a segment takes its arrivals along first */
		drop_arrivals(t);
	return 0;
}

/* Bytes that the kernel's sequence number of `direction` says have moved, and whose hook has yet to run. */
inline_always s32 moved_unseen(const struct turns *t, u8 direction, u32 sequence)
{
	return (s32)(sequence - (t->sequence[direction] + (u32)t->position[direction]));
}

/* Whether what moved unseen in the other direction came before this I/O: the start of the send and the arrival of the
 * received bytes decide. Where one is not known, a request comes before its response.
 */
inline_always int other_came_first(const struct turns *t, u8 direction, const struct io *io)
{
	u64 sent = direction == DIRECTION_SENT ? io->start : t->send_started;
	u64 received = arrival_of(t, t->position[DIRECTION_RECEIVED]);

	if (sent && received)
		return direction == DIRECTION_SENT ? received < sent : sent < received;
	return (t->phase == PHASE_IDLE) == (direction != request_direction(t));
}

/* Account bytes before their own hook has run, which it may never do. */
inline_always void account_ahead(struct turns *t, u8 direction, u64 moved, const struct io *io, struct effects *fx)
{
	struct io early = {
		.start = io->end,
		.end = io->end,
		.size = moved,
		.process = io->process,
	};

	if (direction == DIRECTION_SENT) {
		early.start_unknown = !t->send_started;
		if (t->send_started)
			early.start = t->send_started;
	}
	t->ahead_from[direction] = t->position[direction];
	account(t, direction, &early, fx);
	fx->early += moved;
}

/* The late hook of bytes that begin at `from`: their payload, if it is the first of its message. */
inline_always void complete_early(struct turns *t, u8 direction, u64 from, const struct io *io, struct effects *fx)
{
	struct exchange *x = &t->slots[t->current & 1];

	if (t->phase == PHASE_IDLE)
		return;
	if (direction != request_direction(t)) {
		if (t->phase == PHASE_RESPONSE && from + x->response_size == t->position[direction])
			x->response_captured = keep_head(t, HEAD_RESPONSE, x->response_captured, 0, io);
		return;
	}
	if (from != x->position)
		return;
	x->request_captured = keep_head(t, HEAD_REQUEST, x->request_captured, 0, io);
	if (io->command_size && io->size > io->command_size) { /* it was a pipeline, now that it can be seen */
		t->protocol = PROTOCOL_RESP;
		if (t->phase == PHASE_REQUEST) {
			t->phase = PHASE_IDLE;
			t->mode = MODE_SEGMENTS;
			fx->segment = 1;
			fx->position = from;
		} else { /* its answers went by without payload */
			x->flags |= FLAG_PIPELINED;
		}
	}
}

/* Segment mode: the I/O goes up. `fresh` of its bytes were not accounted yet, and `skipped` before them neither. */
inline_always void segment(struct turns *t, u8 direction, u64 fresh, u64 early, u64 skipped, struct effects *fx)
{
	if (skipped) {
		t->ahead_from[direction] = t->position[direction];
		t->position[direction] += skipped;
		fx->early += skipped;
	}
	fx->segment = 1;
	fx->position = early ? t->ahead_from[direction] : t->position[direction];
	t->ahead_from[direction] += early;
	t->position[direction] += fresh;
}

/* An I/O returned. sequence: by direction, the kernel's sequence number behind the last byte that moved. */
inline_always void on_io(struct turns *t, u8 direction, struct io *io, const u32 *sequence, struct effects *fx)
{
	s32 moved = moved_unseen(t, direction, sequence[direction]);
	s32 moved_back = moved_unseen(t, !direction, sequence[!direction]);
	u64 fresh, early, skipped = 0;

	if (direction == DIRECTION_SENT)
		t->send_started = 0;
	if (t->by_hooks) {
		moved_back = 0;
		fresh = io->size;
	} else {
		fresh = moved > 0 ? least(moved, io->size) : 0;
		if (moved > 0)
			skipped = moved - fresh;
	}
	early = io->size - fresh;
	if (t->mode == MODE_SEGMENTS) {
		segment(t, direction, fresh, early, skipped, fx);
		return;
	}
	if (early) {
		complete_early(t, direction, t->ahead_from[direction], io, fx);
		t->ahead_from[direction] += early;
		if (!fresh || fx->segment)
			return;
		io->size = fresh;
		io->captured = 0; /* it began with the early bytes */
		io->command_size = 0;
	}
	if (moved_back > 0 && other_came_first(t, direction, io))
		account_ahead(t, !direction, moved_back, io, fx);
	if (skipped && t->mode == MODE_TURNS) {
		account_ahead(t, direction, skipped, io, fx);
		skipped = 0;
	}
	if (t->mode == MODE_SEGMENTS) /* since just now; the late hook will bring the bytes accounted ahead */
		segment(t, direction, fresh, 0, skipped, fx);
	else
		account(t, direction, io, fx);
}

/* Received bytes up to `received_to` are in the socket's buffer. Returns 0 if there was no room to keep that. Runs
 * without the lock, so it touches nothing but its own end of the ring.
 */
inline_always int on_arrival(struct turns *t, u64 received_to, u64 now)
{
	u32 written = t->arrivals_written;
	struct arrival *a = &t->arrivals[written & (ARRIVALS - 1)];
	u64 from = greatest(t->arrived_to, t->position[DIRECTION_RECEIVED]);

	if (received_to <= from)
		return 1;
	t->arrived_to = received_to;
	if (written - t->arrivals_read >= ARRIVALS)
		return 0;
	a->time = now;
	a->begin = from;
	a->end = received_to;
	t->arrivals_written = written + 1;
	return 1;
}

/* The stream ended for the reader of responses, or the socket is gone: no more bytes will come. Response bytes that
 * moved without a hook are accounted first.
 */
inline_always void on_end(struct turns *t, u8 outcome, u64 now, const u32 *sequence, struct effects *fx)
{
	u8 back = !request_direction(t);
	s32 moved = moved_unseen(t, back, sequence[back]);
	struct io last = {.end = now};

	if (moved > 0 && t->mode == MODE_TURNS && t->phase != PHASE_IDLE && !t->by_hooks)
		account_ahead(t, back, moved, &last, fx);
	if (t->phase == PHASE_RESPONSE) {
		finish(t, OUTCOME_ANSWERED, fx);
	} else if (t->phase == PHASE_REQUEST) {
		t->slots[t->current & 1].response_end = now;
		finish(t, outcome, fx);
	}
}

/* Called from time to time: a response that has been quiet for `settle` is complete, a request that has waited for
 * `request_timeout` is unanswered. `unread`: response bytes wait in the socket's buffer.
 */
inline_always void on_quiet(struct turns *t, u64 now, u64 settle, u64 request_timeout, int unread, struct effects *fx)
{
	if (t->mode != MODE_TURNS || t->phase == PHASE_IDLE || now < t->last)
		return;
	/* A send may take long; one whose return was never seen (a kernel user of the socket) must not hold us up. */
	if (t->send_started && now - t->send_started < request_timeout)
		return;
	if (t->phase == PHASE_RESPONSE && now - t->last >= settle && !unread) {
		finish(t, OUTCOME_ANSWERED, fx);
		t->settled = 1;
	} else if (t->phase == PHASE_REQUEST && now - t->last >= request_timeout) {
		t->slots[t->current & 1].response_end = now;
		finish(t, OUTCOME_TIMEOUT, fx);
		t->settled = 1;
	}
}

#endif
