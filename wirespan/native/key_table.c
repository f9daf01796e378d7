/* SPDX-License-Identifier: Apache-2.0 */
/* See key_table.h. */
#include "key_table.h"

#include <string.h>

u64 key_table_size(void)
{
	return sizeof(struct key_table);
}

/* The slot of this key, or the free one where it would be. Keys may be counters, so they are spread by a product. */
static u64 slot_of(const struct key_table *table, const struct generation *generation, u64 key)
{
	u64 mask = (1ULL << table->slot_bits) - 1;
	u64 slot = key * 0x9e3779b97f4a7c15ULL >> (64 - table->slot_bits);

	while (generation->values[slot] != KEY_TABLE_ABSENT && generation->keys[slot] != key)
		slot = (slot + 1) & mask;
	return slot;
}

static void forget(const struct key_table *table, const struct generation *generation)
{
	memset(generation->values, 0xff, sizeof(u32) << table->slot_bits);
}

static void age(struct key_table *table)
{
	struct generation forgotten = table->old;

	forget(table, &forgotten);
	table->old = table->young;
	table->young = forgotten;
	table->count = 0;
}

static void put(struct key_table *table, u64 key, u32 value)
{
	u64 slot;

	if (table->count >= table->limit)
		age(table);
	slot = slot_of(table, &table->young, key);
	if (table->young.values[slot] == KEY_TABLE_ABSENT)
		table->count++;
	table->young.keys[slot] = key;
	table->young.values[slot] = value;
}

static u32 find(struct key_table *table, u64 key)
{
	u32 value = table->young.values[slot_of(table, &table->young, key)];

	if (value != KEY_TABLE_ABSENT)
		return value;
	value = table->old.values[slot_of(table, &table->old, key)];
	if (value != KEY_TABLE_ABSENT)
		put(table, key, value);
	return value;
}

/* values[i]: of the key that lies at keys + i * stride, -1 where it is unknown. Returns how many are unknown. */
u64 key_table_find(struct key_table *table, const u8 *keys, u64 stride, u64 count, s64 *values)
{
	u64 unknown = 0;

	for (u64 i = 0; i < count; i++) {
		u64 key;
		u32 value;

		memcpy(&key, keys + i * stride, sizeof(key));
		value = find(table, key);
		values[i] = value == KEY_TABLE_ABSENT ? -1 : (s64)value;
		unknown += value == KEY_TABLE_ABSENT;
	}
	return unknown;
}

void key_table_add(struct key_table *table, const u64 *keys, const s64 *values, u64 count)
{
	for (u64 i = 0; i < count; i++)
		put(table, keys[i], (u32)values[i]);
}

void key_table_clear(struct key_table *table)
{
	forget(table, &table->young);
	forget(table, &table->old);
	table->count = 0;
}
