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

	return take_arrival(d, size, &found) ? found.time : 0;
}

void balance_at(struct datagrams *d, u64 unread, u64 now)
{
	balance(d, unread, now);
}

int request(struct flow *f, u64 content, u64 now)
{
	return begin_request(f, content, now);
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
