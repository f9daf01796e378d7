/* SPDX-License-Identifier: Apache-2.0 */
/* A bounded memory of numbers by 64-bit key: what was looked up before, without a Python object an entry.
 *
 * Open addressing with linear probing, at most half full. Entries live in two generations. When the younger one is
 * full, it becomes the older, and what the older one held is forgotten; an entry that is met there comes back into the
 * younger. So what is frequent stays known, whatever passes by, and nothing is ever deleted singly.
 */
#ifndef WIRESPAN_KEY_TABLE_H
#define WIRESPAN_KEY_TABLE_H

#include "types.h"

#define KEY_TABLE_ABSENT 0xffffffffU

struct generation {
	u64 *keys;
	u32 *values; /* KEY_TABLE_ABSENT where a slot is free */
};

/* slot_bits: of each generation; its slots are twice `limit` at least. Mirrored in key_table.py. */
struct key_table {
	struct generation young;
	struct generation old;
	u64 limit;
	u64 count; /* entries of the younger generation */
	u64 slot_bits;
};

u64 key_table_size(void);
u64 key_table_find(struct key_table *table, const u8 *keys, u64 stride, u64 count, s64 *values);
void key_table_add(struct key_table *table, const u64 *keys, const s64 *values, u64 count);
void key_table_clear(struct key_table *table);

#endif
