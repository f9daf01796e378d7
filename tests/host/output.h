/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#ifndef WIRESPAN_TEST_OUTPUT_H
#define WIRESPAN_TEST_OUTPUT_H

/* The bytes of an I/O, here in the test's memory. */
struct payload {
	const unsigned char *bytes;
	unsigned int captured;
	unsigned char none;
};

#include "counters.h"
#include "turns.h"

/* What came out of one event. */
struct output {
	u8 finished; /* exchanges */
	u8 segment;
	u8 pending;
	u8 wants_head; /* an arrival's first bytes */
	u64 segment_position;
	u64 segment_size;
	u64 counts[COUNTERS];
	struct arrival arrivals[ARRIVALS];
	struct exchange exchange; /* the last that finished */
	struct exchange pending_exchange;
};

#endif
