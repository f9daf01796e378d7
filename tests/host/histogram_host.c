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

/* Protocol and status class, in two bytes, of an exchange whose heads begin so. */
u32 classify(const u8 *request, u32 request_size, const u8 *response, u32 response_size, u8 protocol, u8 transport)
{
	struct exchange x = {.protocol = protocol, .connection.transport = transport};

	memcpy(x.request_head, request, request_size);
	memcpy(x.response_head, response, response_size);
	x.request_captured = request_size;
	x.response_captured = response_size;
	protocol = protocol_of(&x);
	return protocol << 8 | status_class_of(&x, protocol);
}
