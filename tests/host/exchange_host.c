// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* The state machine on the host, driven by tests/support/state_machine.py: what the BPF programs do for it
 * (copying heads, output) is done here with memcpy.
 */
#include <string.h>

#include "output.h"
#include "unseen.h"

/* of the event under way */
static struct output *out;

void count_many(enum counter which, u64 amount)
{
	out->counts[which] += amount;
}

void count(enum counter which)
{
	count_many(which, 1);
}

void copy_more(const struct io *io, u8 *head, u16 *captured, u32 limit)
{
	u32 room = limit - *captured;
	u32 more = io->payload.captured < room ? io->payload.captured : room;

	if (io->payload.none)
		return;
	memcpy(head + *captured, io->payload.bytes, more);
	*captured += more;
}

u64 first_transmission(const struct io *io)
{
	return io->end - 1;
}

void copy_head(struct turns *t, struct io *io, u8 *head, u16 *captured, u32 limit)
{
	(void)t;
	*captured = 0;
	copy_more(io, head, captured, limit);
}

int message_spans;

/* What became of a request is tested on its own. */
int wants_status(void)
{
	return 0;
}

u64 settle = 1000000000;

u64 silence(void)
{
	return settle;
}

int wants_messages(void)
{
	return message_spans;
}

void describe_process(struct process_info *process)
{
	process->tgid = 1;
}

void output_exchange(struct turns *t, int quietly)
{
	(void)quietly;
	out->finished++;
	out->exchange = t->exchange;
}

void output_pending(struct turns *t)
{
	out->pending++;
	out->pending_exchange = t->exchange;
}

unsigned long turns_size(void)
{
	return sizeof(struct turns);
}

unsigned long output_size(void)
{
	return sizeof(struct output);
}

static void begin_event(struct output *to)
{
	out = to;
	memset(out, 0, sizeof(*out));
}

void turns_init(struct turns *t, u8 role, u32 sent_sequence, u32 received_sequence, u64 sent, u64 received)
{
	memset(t, 0, sizeof(*t));
	t->sequence[DIRECTION_SENT] = sent_sequence;
	t->sequence[DIRECTION_RECEIVED] = received_sequence;
	t->position[DIRECTION_SENT] = sent;
	t->position[DIRECTION_RECEIVED] = received;
	t->arrivals.accounted_to = received;
	t->arrivals.released_to = received;
	t->exchange.connection.role = role;
	t->role = role;
	t->mode = MODE_TURNS;
}

void send_began(struct turns *t, u64 now)
{
	if (!t->send_started)
		t->send_started = now;
}

void io_returned(struct turns *t, u8 direction, u64 now, const u8 *payload, u64 size, u32 captured, const u32 *sequence,
		 struct output *to)
{
	struct io io = {.start = now, .end = now, .size = size, .direction = direction};

	begin_event(to);
	io.payload.bytes = payload;
	io.payload.captured = captured;
	if (direction == DIRECTION_SENT && t->send_started)
		io.start = t->send_started;
	if (!on_io(t, &io, sequence))
		return;
	if (direction == DIRECTION_RECEIVED)
		take_arrivals(&t->arrivals, io.position, out->arrivals);
	out->segment = 1;
	out->segment_position = io.position;
	out->segment_size = io.size;
}

void arrived(struct turns *t, u64 read_to, u64 received_to, u64 now, struct output *to)
{
	begin_event(to);
	out->wants_head = on_arrival(t, read_to, received_to, now) < received_to;
}

void ended(struct turns *t, u8 outcome, u64 now, const u32 *sequence, struct output *to)
{
	begin_event(to);
	on_end(t, outcome, now, sequence);
}

void quiet(struct turns *t, u64 now, u64 settle, u64 request_timeout, int unread, const u32 *sequence,
	   struct output *to)
{
	begin_event(to);
	on_quiet(t, now, settle, request_timeout, unread, sequence);
}

/* 0: none; all ones: unknown. */
u64 command_size(const u8 *bytes, u32 captured)
{
	struct head head = {{0}};
	struct command command;
	int found;

	memcpy(head.bytes, bytes, captured < REQUEST_HEAD ? captured : REQUEST_HEAD);
	found = captured < 4 ? COMMAND_NONE : resp_command_end(&head, captured, &command);
	return found == COMMAND_NONE ? 0 : found == COMMAND_END_KNOWN ? command.end : ~0ull;
}
