/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What happens to a socket, told to the state machine in the order of positions.
 *
 * An I/O whose hook runs in time is simply accounted. Otherwise the kernel's sequence numbers say more, or less, than
 * this I/O: bytes whose hook has yet to run, or never will, are accounted ahead without payload; a late hook finds its
 * bytes accounted and only fills in the payload.
 */
#ifndef WIRESPAN_UNSEEN_H
#define WIRESPAN_UNSEEN_H

#include "exchange.h"

/* Bytes that the kernel's sequence number of `direction` says have moved, and whose hook has yet to run. */
inline_always s32 moved_unseen(const struct turns *t, u8 direction, u32 sequence)
{
	return (s32)(sequence - (t->sequence[direction] + (u32)t->position[direction]));
}

/* What the kernel's sequence numbers would be if nothing had moved unseen. */
inline_always void accounted_sequences(const struct turns *t, u32 *sequence)
{
	for (u32 direction = 0; direction < 2; direction++)
		sequence[direction] = t->sequence[direction] + (u32)t->position[direction];
}

/* Whether what moved unseen in the other direction came before this I/O: the start of the send and the arrival of the
 * received bytes decide. Where one is not known, a request comes before its response. `sent`: the start; 0: not known.
 */
inline_always int other_came_first(const struct turns *t, const struct io *io, u64 sent)
{
	u64 received = arrival_of(&t->arrivals, t->position[DIRECTION_RECEIVED]);

	if (sent && received)
		return io->direction == DIRECTION_SENT ? received < sent : sent < received;
	return (t->phase == PHASE_IDLE || t->phase == PHASE_MESSAGE) == (io->direction != request_direction(t));
}

/* When the send under way of `size` bytes began that is not this I/O; 0: not known. */
inline_always u64 other_send(const struct turns *t, const struct io *io, u64 size)
{
	return t->send_started || size > TIMED_BY_PACKET ? t->send_started : first_transmission(io);
}

/* When bytes moved whose hook did not run: received ones have arrived at least. `now` is when that was noticed. */
inline_always u64 time_unseen(const struct turns *t, u8 direction, u64 moved, u64 now)
{
	u64 to = t->position[direction & 1] + moved, time;

	if (direction == DIRECTION_SENT)
		return now;
	time = arrival_of(&t->arrivals, to - 1);
	if (!time && t->arrivals.accounted_to <= to)
		time = t->arrivals.latest;
	if (time < t->last)
		time = t->last;
	return time < now ? time : now;
}

/* Account bytes before their own hook has run, which it may never do. Their payload is not at hand. `sent`: when their
 * send began, if it is one; 0: not known. A function of its own, and not static: the verifier then looks at it once.
 */
__attribute__((noinline)) int account_ahead(struct turns *t, u8 direction, u64 moved, u64 now, u64 sent)
{
	struct io io = {.size = moved};

	if (!t)
		return 0;
	direction &= 1;
	io.direction = direction;
	io.payload.none = 1;
	io.start = io.end = time_unseen(t, direction, moved, now);
	if (direction == DIRECTION_SENT) {
		io.start_unknown = !sent;
		if (sent)
			io.start = sent;
	}
	t->ahead_from[direction] = t->position[direction];
	count_many(COUNT_BYTES_BEFORE_HOOK, moved);
	return account(t, &io);
}

/* The late hook of bytes that begin at io->position: their payload, if it is the first of its message. Returns 1 if
 * the I/O goes up as a segment: it was a pipeline, now that it can be seen.
 */
inline_always int complete_early(struct turns *t, const struct io *io)
{
	struct exchange *x = &t->exchange;
	int is_request = io->direction == request_direction(t);

	if (t->phase <= PHASE_JOINED || t->phase == PHASE_MESSAGE || (is_opaque(t) && !x->request_captured))
		return 0;
	if (!is_request) {
		if (t->phase == PHASE_RESPONSE && !x->response_captured &&
		    io->position + x->response_size == t->position[io->direction])
			copy_more(io, x->response_head, &x->response_captured, RESPONSE_HEAD);
		return 0;
	}
	if (io->position != x->position || x->request_captured)
		return 0;
	copy_more(io, x->request_head, &x->request_captured, REQUEST_HEAD);
	if (find_command_end(t, io) != COMMAND_END_KNOWN) {
		recognise(t);
		return 0;
	}
	if (exceeds_command(t, io) && t->phase == PHASE_REQUEST)
		return change_to_segments(t);
	/* Its answers, or the commands behind it, went by without payload. */
	if (exceeds_command(t, io) || io->position + x->request_size > t->command.end)
		x->flags |= FLAG_PIPELINED;
	return 0;
}

/* Segment mode: the I/O goes up. `fresh` of its bytes were not accounted yet, and `skipped` before them neither. */
inline_always void segment(struct turns *t, struct io *io, u64 fresh, u64 skipped)
{
	u8 direction = io->direction;
	u64 early = io->size - fresh;

	if (skipped) {
		t->ahead_from[direction] = t->position[direction];
		t->position[direction] += skipped;
		count_many(COUNT_BYTES_BEFORE_HOOK, skipped);
	}
	io->position = early ? t->ahead_from[direction] : t->position[direction];
	t->ahead_from[direction] += early;
	t->position[direction] += fresh;
}

/* What remains to be done of an I/O. */
enum remains {
	REMAINS_NOTHING,
	REMAINS_SEGMENT, /* it goes up at io->position */
	REMAINS_ALL, /* it is to be accounted */
};

/* An I/O for which the positions are not just what its hook expects. `moved`, `moved_back`: bytes that moved unseen in
 * its direction, its own included, and in the other.
 */
inline_always enum remains catch_up(struct turns *t, struct io *io, s32 moved, s32 moved_back)
{
	u8 direction = io->direction;
	u64 fresh = moved <= 0 ? 0 : (u64)moved < io->size ? (u64)moved : io->size;
	u64 skipped = moved > 0 ? moved - fresh : 0;
	u64 early = io->size - fresh;

	if (early && t->mode == MODE_TURNS) {
		io->position = t->ahead_from[direction];
		t->ahead_from[direction] += early;
		if (complete_early(t, io)) {
			t->position[direction] += fresh;
			return REMAINS_SEGMENT;
		}
		if (!fresh)
			return REMAINS_NOTHING;
		io->size = fresh;
		io->payload.none = 1; /* it began with the early bytes */
	}
	if (moved_back > 0 && t->mode == MODE_TURNS) {
		u64 sent = direction == DIRECTION_SENT ? io->start : other_send(t, io, moved_back);

		if (other_came_first(t, io, sent))
			account_ahead(t, !direction, moved_back, io->end, sent);
	}
	if (skipped && t->mode == MODE_TURNS) {
		account_ahead(t, direction, skipped, io->end, 0);
		skipped = 0;
	}
	if (t->mode == MODE_TURNS)
		return REMAINS_ALL;
	segment(t, io, fresh, skipped); /* if since just now, the late hook will bring the bytes accounted ahead */
	return REMAINS_SEGMENT;
}

/* Nothing that has moved before the last `size` bytes of `direction` will be missed. */
inline_always void pass_over(struct turns *t, u8 direction, u64 size, const u32 *sequence)
{
	s32 moved = moved_unseen(t, direction, sequence[direction]) - (s32)size;
	s32 moved_back = moved_unseen(t, !direction, sequence[!direction]);

	if (moved > 0)
		t->position[direction] += moved;
	if (moved_back > 0)
		t->position[!direction] += moved_back;
}

/* An I/O returned. sequence: by direction, the kernel's sequence number behind the last byte that moved. Returns 1 if
 * it goes up as a segment at io->position.
 */
inline_always int on_io(struct turns *t, struct io *io, const u32 *sequence)
{
	enum remains remains = REMAINS_ALL;
	s32 moved, moved_back;

	if (io->direction == DIRECTION_SENT)
		t->send_started = 0;
	if (unlikely(t->phase == PHASE_JOINED))
		pass_over(t, io->direction, io->size, sequence);
	if (unlikely(t->by_hooks)) {
		moved = io->size;
		moved_back = 0;
	} else {
		moved = moved_unseen(t, io->direction, sequence[io->direction]);
		moved_back = moved_unseen(t, !io->direction, sequence[!io->direction]);
	}
	if (unlikely(t->mode == MODE_SEGMENTS || (u64)moved != io->size || moved_back > 0))
		remains = catch_up(t, io, moved, moved_back);
	return remains == REMAINS_ALL ? account(t, io) : remains == REMAINS_SEGMENT;
}

/* Received bytes up to `received_to` are in the socket's buffer, and those up to `read_to` were read. Returns where
 * those begin whose head may be wanted, or `received_to` for none. Runs without the lock and writes nothing but arrivals.
 */
inline_always u64 on_arrival(struct turns *t, u64 read_to, u64 received_to, u64 now)
{
	int kept;
	u64 from = add_arrival(&t->arrivals, &t->position[DIRECTION_RECEIVED], read_to, received_to, now, &kept);

	if (unlikely(!kept))
		count(COUNT_ARRIVALS_FULL);
	if (t->mode != MODE_TURNS || t->by_hooks || t->head_unwanted || !head_is_free(&t->arrivals, read_to))
		return received_to;
	return from;
}

/* The stream ended for the reader of responses, or the socket is gone: no more bytes will come. Response bytes that
 * moved without a hook are accounted first.
 */
inline_always void on_end(struct turns *t, u8 outcome, u64 now, const u32 *sequence)
{
	u8 back = !request_direction(t);
	s32 moved = moved_unseen(t, back, sequence[back]);

	if (moved > 0 && t->mode == MODE_TURNS && t->phase != PHASE_IDLE && !t->by_hooks)
		account_ahead(t, back, moved, now, 0);
	if (t->phase == PHASE_RESPONSE || t->phase == PHASE_MESSAGE) {
		finish(t, OUTCOME_ANSWERED);
	} else if (t->phase == PHASE_REQUEST && is_farewell(&t->exchange)) {
		t->phase = PHASE_IDLE;
		count(COUNT_MESSAGES_ONE_WAY);
	} else if (t->phase == PHASE_REQUEST) {
		t->exchange.response_end = now;
		finish(t, outcome);
	}
}

/* The same as account_ahead() for on_quiet(), which may not call it: bytes that go on with what is under way. Without it
 * what is spliced would look like silence, and 2 GiB of it could not be told from none.
 */
inline_always void account_quietly(struct turns *t, u8 direction, s32 moved, u64 now)
{
	struct exchange *x = &t->exchange;
	struct io io = {.direction = direction, .payload.none = 1};

	if (moved <= 0 || t->by_hooks || (direction == request_direction(t) && t->phase != PHASE_REQUEST))
		return;
	io.size = moved;
	io.position = t->position[direction];
	io.start = io.end = time_unseen(t, direction, moved, now);
	io.start_unknown = direction == DIRECTION_SENT;
	count_many(COUNT_BYTES_BEFORE_HOOK, moved);
	if (direction == request_direction(t)) {
		x->request_size += moved;
		x->request_end = io.end;
	} else {
		account_response(t, &io);
	}
	t->ahead_from[direction] = io.position;
	t->position[direction] += moved;
	t->last = io.end;
}

/* Called from time to time: a response that has been quiet for `settle` is complete, a request that has waited for
 * `request_timeout` is unanswered. `unread`: response bytes wait in the socket's buffer. sequence: as for
 * on_io(). Calls no function that is not
 * static: where preemption is disabled, the verifier allows none.
 */
inline_always void on_quiet(struct turns *t, u64 now, u64 settle, u64 request_timeout, int unread, const u32 *sequence)
{
	if (t->mode != MODE_TURNS || t->phase <= PHASE_JOINED || now < t->last)
		return;
	/* A send may take long; one whose return was never seen (a kernel user of the socket) must not hold us up. */
	if (t->send_started && now - t->send_started < request_timeout)
		return;
	for (u8 direction = 0; direction < 2; direction++)
		account_quietly(t, direction, moved_unseen(t, direction, sequence[direction]), now);
	if (t->phase == PHASE_RESPONSE && now - t->last >= (t->interim ? request_timeout : settle) && !unread) {
		finish_here(t, OUTCOME_ANSWERED, 1);
		t->settled = SETTLED_EXCHANGE;
	} else if (t->phase == PHASE_MESSAGE && now - t->last >= settle && !unread) {
		finish_here(t, OUTCOME_ANSWERED, 1);
	} else if (t->phase == PHASE_REQUEST && now - t->last >= request_timeout) {
		t->exchange.response_end = now;
		finish_here(t, OUTCOME_TIMEOUT, 1);
		t->settled = SETTLED_EXCHANGE;
	}
}

#endif
