/* SPDX-License-Identifier: Apache-2.0 */
/* What spans add to metrics. Spans whose series are the same have the same key, so that a series is looked for once a key;
 * then one pass counts their durations by bucket and keeps one span of each bucket as its exemplar.
 */
#include <string.h>

#include "exchanges.h"
#include "siphash.h"

/* Of a record what tells series apart and is in no fragment of its span. */
static u64 ends_of(const struct exchange *record)
{
	const struct connection_info *connection = &record->connection;
	int is_server = connection->role == ROLE_SERVER;
	u64 remote[2], port = is_server ? connection->local_port : connection->remote_port;
	int is_local;

	memcpy(remote, connection->remote_address, sizeof(remote));
	is_local = (connection->flags & FLAG_PEER_OBSERVED) || address_is_loopback(remote) ||
		   !memcmp(remote, connection->local_address, sizeof(remote));
	return port | (u64)connection->role << 16 | (u64)connection->transport << 24 | (u64)record->outcome << 32 |
	       (u64)is_local << 40 | (u64)(record->flags & FLAG_MESSAGE) << 48;
}

/* One to one for each key: what differs in one word only never meets. */
static u64 mixed(u64 key, u64 word)
{
	key = (key ^ word) * 0x9e3779b97f4a7c15ULL;
	return key ^ key >> 32;
}

/* keys[i]: of the span of record i. operations, remarks, resources: indices into the tables of its batch; remarks may be NULL. */
void series_keys(const struct records *records, const s64 *operations, const s64 *remarks, const s64 *resources,
		 u64 *keys)
{
	for (u64 row = 0; row < records->count; row++) {
		u64 key = mixed(ends_of(record_at(records, row)), (u64)operations[row]);

		keys[row] = mixed(mixed(key, remarks ? (u64)remarks[row] : ~0ULL), (u64)resources[row]);
	}
}

/* A span; span_id 0: there is none. Times in ns. */
struct exemplar {
	u64 trace_id[2];
	u64 span_id;
	u64 time;
	u64 duration;
};

/* n spans. cells[i]: which of the cells span i belongs to. */
struct durations {
	u64 count;
	const s64 *cells;
	const u64 *start;
	const u64 *end;
	const u64 *trace_ids;
	const u64 *span_ids;
};

/* Rows of bound_count + 1 buckets. A duration that equals a bound lies below it. counts, sums: may be NULL. exemplars: too. */
struct duration_table {
	const u64 *bounds;
	u64 bound_count;
	double *counts;
	double *sums;
	struct exemplar *exemplars;
};

u64 exemplar_size(void)
{
	return sizeof(struct exemplar);
}

u64 durations_size(void)
{
	return sizeof(struct durations);
}

u64 duration_table_size(void)
{
	return sizeof(struct duration_table);
}

/* Most durations are short: of 25 bounds the first few are looked at. */
static u64 bucket_of(const struct duration_table *table, u64 duration)
{
	u64 bucket = 0;

	while (bucket < table->bound_count && duration > table->bounds[bucket])
		bucket++;
	return bucket;
}

static void keep(struct exemplar *exemplar, const struct durations *spans, u64 i, u64 duration)
{
	exemplar->trace_id[0] = spans->trace_ids[2 * i];
	exemplar->trace_id[1] = spans->trace_ids[2 * i + 1];
	exemplar->span_id = spans->span_ids[i];
	exemplar->time = spans->end[i];
	exemplar->duration = duration;
}

/* rows, weights: of each cell the row of its series, -1 where it has none, and for how many exchanges one of its spans stands. */
void durations_add(const struct durations *spans, const s64 *rows, const double *weights,
		   const struct duration_table *table)
{
	for (u64 i = 0; i < spans->count; i++) {
		s64 cell = spans->cells[i], row = rows[cell];
		u64 duration = spans->end[i] - spans->start[i], at;

		if (row < 0)
			continue;
		at = (u64)row * (table->bound_count + 1) + bucket_of(table, duration);
		if (table->counts) {
			table->counts[at] += weights[cell];
			table->sums[row] += weights[cell] * (double)duration;
		}
		if (table->exemplars)
			keep(&table->exemplars[at], spans, i, duration);
	}
}
