// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* The state machine on the host, driven by tests/unit/test_exchange_state_machine.py: what the BPF programs do around
 * it (copying heads, output of slots) is done here with memcpy.
 */
#include <string.h>

#include "output.h"

static long bpf_loop(u32 count, long (*step)(u32, void *), void *context, u64 flags)
{
	(void)flags;
	for (u32 i = 0; i < count; i++)
		if (step(i, context))
			return i + 1;
	return count;
}
#define bpf_loop(count, step, context, flags) bpf_loop(count, (long (*)(u32, void *))step, context, flags)
#include "resp.h"

static void carry_out(struct turns *t, const struct effects *fx, struct output *out)
{
	if (fx->pending) {
		out->pending_exchange = t->slots[fx->pending - 1];
		t->emitting[fx->pending - 1] = 0;
	}
	if (fx->finished) {
		out->exchange = t->slots[fx->finished - 1];
		t->emitting[fx->finished - 1] = 0;
	}
	out->finished = fx->finished;
	out->segment = fx->segment;
	out->pending = fx->pending;
	out->pushed = fx->pushed;
	out->continued = fx->continued;
	out->interim = fx->interim;
	out->contended = fx->contended;
	out->segment_position = fx->position;
	out->early = fx->early;
}

unsigned long turns_size(void)
{
	return sizeof(struct turns);
}

unsigned long output_size(void)
{
	return sizeof(struct output);
}

void turns_init(struct turns *t, u8 role, u32 sent_sequence, u32 received_sequence, u64 sent, u64 received)
{
	memset(t, 0, sizeof(*t));
	t->sequence[DIRECTION_SENT] = sent_sequence;
	t->sequence[DIRECTION_RECEIVED] = received_sequence;
	t->position[DIRECTION_SENT] = sent;
	t->position[DIRECTION_RECEIVED] = received;
	t->arrived_to = received;
	t->slots[0].connection.role = role;
	t->slots[1].connection.role = role;
}

void send_began(struct turns *t, u64 now)
{
	if (!t->send_started)
		t->send_started = now;
}

void io_returned(struct turns *t, u8 direction, u64 now, const u8 *payload, u64 size, u32 captured, const u32 *sequence,
		 struct output *out)
{
	struct effects fx = {0};
	struct io io = {.start = now, .end = now, .size = size};

	int late = moved_unseen(t, direction, sequence[direction]) <= 0;

	memset(out, 0, sizeof(*out));
	if (t->mode == MODE_TURNS && predict_head(t, direction, late, &io.place)) {
		struct exchange *x = &t->slots[io.place.slot];
		int is_request = io.place.side == HEAD_REQUEST;
		u8 *to = (is_request ? x->request_head : x->response_head) + io.place.at;
		u32 room = (is_request ? REQUEST_HEAD : RESPONSE_HEAD) - io.place.at;
		io.captured = captured < room ? captured : room;
		memcpy(to, payload, io.captured);
		if (is_request && !io.place.at)
			io.command_size = resp_command_size((const struct head *)x->request_head, io.captured);
	}
	if (direction == DIRECTION_SENT && t->send_started)
		io.start = t->send_started;
	on_io(t, direction, &io, sequence, &fx);
	if (fx.segment && direction == DIRECTION_RECEIVED)
		take_arrivals(t, out->arrivals);
	carry_out(t, &fx, out);
	out->segment_size = fx.segment ? size : 0;
}

void arrived(struct turns *t, u64 received_to, u64 now, struct output *out)
{
	memset(out, 0, sizeof(*out));
	out->kept_arrival = on_arrival(t, received_to, now);
}

void ended(struct turns *t, u8 outcome, u64 now, const u32 *sequence, struct output *out)
{
	struct effects fx = {0};

	memset(out, 0, sizeof(*out));
	on_end(t, outcome, now, sequence, &fx);
	carry_out(t, &fx, out);
}

void quiet(struct turns *t, u64 now, u64 settle, u64 request_timeout, int unread, struct output *out)
{
	struct effects fx = {0};

	memset(out, 0, sizeof(*out));
	on_quiet(t, now, settle, request_timeout, unread, &fx);
	carry_out(t, &fx, out);
}

u64 command_size(const u8 *bytes, u32 captured)
{
	struct head head = {{0}};

	memcpy(head.bytes, bytes, captured < REQUEST_HEAD ? captured : REQUEST_HEAD);
	return resp_command_size(&head, captured);
}

void hold_slot(struct turns *t, u8 slot, u8 held)
{
	t->emitting[slot & 1] = held;
}
