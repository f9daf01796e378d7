/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#ifndef WIRESPAN_TEST_OUTPUT_H
#define WIRESPAN_TEST_OUTPUT_H

#include "exchange.h"

/* What came out of one event. */
struct output {
	u8 finished;
	u8 segment;
	u8 pending;
	u8 pushed;
	u8 continued;
	u8 interim;
	u8 contended;
	u8 kept_arrival;
	u64 segment_position;
	u64 segment_size;
	u64 early;
	struct arrival arrivals[ARRIVALS];
	struct exchange exchange;
	struct exchange pending_exchange;
};

#endif
