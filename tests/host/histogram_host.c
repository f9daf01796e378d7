// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* bpf/histogram.h and bpf/status.h on the host, driven by tests/unit/test_histogram.py and test_status.py. */
#include <string.h>

#include "histogram.h"
#include "status.h"

void slots_of(const struct slot_table *table, const u64 *durations, u32 *slots, u64 count)
{
	for (u64 i = 0; i < count; i++)
		slots[i] = slot_of(table, durations[i]);
}

unsigned long table_size(void)
{
	return sizeof(struct slot_table);
}

/* Protocol and status class, in two bytes, of an exchange whose heads begin so; 1 << 16: it is a farewell. request_size,
 * response_size: what travelled.
 */
u32 classify(const u8 *request, u32 request_captured, u64 request_size, const u8 *response, u32 response_captured,
	     u64 response_size, u8 protocol, u8 transport)
{
	struct exchange x = {.protocol = protocol, .connection.transport = transport};

	memcpy(x.request_head, request, request_captured);
	memcpy(x.response_head, response, response_captured);
	x.request_captured = request_captured;
	x.response_captured = response_captured;
	x.request_size = request_size;
	x.response_size = response_size;
	tell(&x);
	return (u32)is_farewell(&x) << 16 | x.protocol << 8 | x.connection.status;
}

/* How many of `count` exchanges of random bytes, whose sizes are what they say, and of which the first `given` bytes of each
 * side are those of `request` and `response`, are told to be of each protocol.
 */
void classify_random(u64 seed, u64 count, const u8 *request, const u8 *response, u32 given, u64 *found)
{
	struct exchange x = {.connection.transport = IPPROTO_TCP};

	for (u64 i = 0; i < count; i++) {
		u8 *heads[] = {x.request_head, x.response_head};

		for (u32 side = 0; side < 2; side++)
			for (u32 at = 0; at < 64; at += 8) {
				seed ^= seed << 13; /* xorshift64 */
				seed ^= seed >> 7;
				seed ^= seed << 17;
				memcpy(heads[side] + at, &seed, 8);
			}
		x.request_size = x.request_captured = 1 + (seed >> 8 & 63);
		x.response_size = x.response_captured = 1 + (seed >> 16 & 63);
		memcpy(x.request_head, request, given);
		memcpy(x.response_head, response, given);
		x.protocol = PROTOCOL_UNKNOWN;
		tell(&x);
		found[x.protocol]++;
	}
}
