/* SPDX-License-Identifier: Apache-2.0 */
/* Which sources this is compiled from; sources.py. */
#include "types.h"

#ifndef SOURCES
#define SOURCES 0 /* not by scripts/build-native */
#endif

u64 sources(void)
{
	return SOURCES;
}
