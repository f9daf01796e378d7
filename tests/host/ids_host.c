// SPDX-License-Identifier: Apache-2.0
/* wirespan/native/ids.c with a hash whose outputs are all 0, which happens once in 2**64 exchanges. */
#include "siphash.h"

static u64 always_zero(struct siphash *hash, u32 index)
{
	(void)hash;
	(void)index;
	return 0;
}

#define siphash13_output always_zero
#include "../../wirespan/native/ids.c"
