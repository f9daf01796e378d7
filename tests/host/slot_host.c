// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* What bpf/slot.h computes, for tests. */
#include "slot.h"

u32 slot_of_port(u16 port, u8 transport, u8 role)
{
	struct connection_info c = {.role = role, .transport = transport};

	if (role == ROLE_CLIENT)
		c.remote_port = port;
	else
		c.local_port = port;
	return policy_slot(&c);
}

u32 which_of(u64 slow, u64 duration, u32 failed)
{
	return counted_as(slow, duration, failed);
}
