// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* bpf/datagram.h on the host, driven by tests/unit/test_datagram.py. */
#include <string.h>

#include "datagram.h"

unsigned long datagrams_size(void)
{
	return sizeof(struct datagrams);
}

unsigned long flow_size(void)
{
	return sizeof(struct flow);
}

/* A datagram of this size is noted down; returns whether there was room. */
int note(struct datagrams *d, u32 size, u64 now)
{
	struct datagram *entry = next_arrival(d);

	if (!entry)
		return 0;
	entry->time = now;
	entry->size = size;
	entry->number = d->arrived;
	return 1;
}

void skip(struct datagrams *d)
{
	skip_arrival(d);
}

/* The time of the datagram's arrival; 0: it has no entry. */
u64 take(struct datagrams *d, u32 size)
{
	struct datagram found;

	return take_arrival(d, size, NULL, &found) ? found.time : 0;
}

/* As note(), from the peer with this port. */
int note_from(struct datagrams *d, u32 size, u64 now, u16 port)
{
	d->entries[(d->arrived + 1) % DATAGRAMS_QUEUED] = (struct datagram){.peer_port = port};
	return note(d, size, now);
}

/* As note() and take(), with the first bytes. */
int note_bytes(struct datagrams *d, u64 now, u64 first)
{
	struct datagram entry = {.captured = 8};

	memcpy(entry.head, &first, sizeof(first));
	d->entries[(d->arrived + 1) % DATAGRAMS_QUEUED] = entry;
	return note(d, sizeof(first), now);
}

u64 take_bytes(struct datagrams *d, u64 first)
{
	u64 head[HEAD_WORDS] = {first};
	struct datagram found;

	return take_arrival(d, sizeof(first), head, &found) ? found.time : 0;
}

/* The time of the arrival of one that is answered before its hook; 0: none from that port. */
u64 ahead(struct datagrams *d, u16 port)
{
	const u64 nowhere[2] = {};
	struct datagram found;

	return take_ahead(d, nowhere, port, &found) ? found.time : 0;
}

/* As take(); 0 as well for one that has been answered. */
u64 take_unanswered(struct datagrams *d, u32 size)
{
	struct datagram found;

	return take_arrival(d, size, NULL, &found) && !(found.flags & DATAGRAM_ANSWERED) ? found.time : 0;
}

void balance_at(struct datagrams *d, u64 unread, u64 now)
{
	balance(d, unread, now);
}

int request(struct flow *f, u64 content, u64 now)
{
	return begin_request(f, content, now);
}

void again(struct flow *f)
{
	begin_again(f);
}

/* -1: none waits */
s64 response(struct flow *f)
{
	u32 number;

	return take_request(f, &number) ? (s64)number : -1;
}

int wants_answer(const struct flow *f)
{
	return wanted_answer(f);
}

int kind_of_dns(const u8 *bytes, u32 captured)
{
	return dns_kind(bytes, captured);
}

int quic(const u8 *bytes, u32 captured, u32 size)
{
	return is_quic(bytes, captured, size);
}

u64 content(const u8 *bytes, u32 captured, u32 size)
{
	struct datagram g = {.size = size};

	memcpy(g.head, bytes, captured);
	return content_hash(1, 2, &g);
}
