/* SPDX-License-Identifier: Apache-2.0 */
/* Keys and ids of records: hashes of what names an exchange, its connection, and its process. receiver/ids.py has the
 * definition of ids; bpf/siphash.h computes them here as in the kernel.
 */
#include <string.h>

#include "exchanges.h"
#include "siphash.h"

#define PROCESS_WORDS (sizeof(struct process_info) / sizeof(u64))

static u64 never_zero(u64 id)
{
	return id ? id : 1;
}

/* trace_ids: high and low half of each; client_spans and server_spans: the ids of both ends' spans. */
void exchange_ids(const struct records *records, const u64 *key, u64 boot_id, u64 *trace_ids, u64 *client_spans,
		  u64 *server_spans)
{
	for (u64 row = 0; row < records->count; row++) {
		const struct exchange *record = record_at(records, row);
		const struct connection_info *connection = &record->connection;
		int is_server = connection->role == ROLE_SERVER;
		u16 client_port = is_server ? connection->remote_port : connection->local_port;
		u64 client[2];
		struct siphash hash;

		memcpy(client, is_server ? connection->remote_address : connection->local_address, sizeof(client));
		hash = wirespan_exchange_hash(key[0], key[1], client, client_port,
					      connection->sequence + (u32)record->position, record->position,
					      connection->netns, boot_id);
		trace_ids[2 * row + 1] = siphash13_output(&hash, 0);
		trace_ids[2 * row] = never_zero(siphash13_output(&hash, 1));
		client_spans[row] = never_zero(siphash13_output(&hash, 2));
		server_spans[row] = never_zero(siphash13_output(&hash, 3));
	}
}

/* keys[i]: a keyed hash of the process of record i. */
void process_keys(const struct records *records, const u64 *key, u64 *keys)
{
	for (u64 row = 0; row < records->count; row++) {
		u64 words[PROCESS_WORDS];
		struct siphash hash;

		memcpy(words, &record_at(records, row)->process, sizeof(words));
		hash = siphash13_words(key[0], key[1], words, PROCESS_WORDS);
		keys[row] = siphash13_output(&hash, 0);
	}
}

/* keys[i]: a keyed hash of the connection of record i. A socket keeps its cookie when it connects anew, perhaps to another
 * server, but begins at another sequence number. One of UDP has many peers.
 */
void connection_keys(const struct records *records, const u64 *key, u64 *keys)
{
	for (u64 row = 0; row < records->count; row++) {
		const struct connection_info *connection = &record_at(records, row)->connection;
		u64 ports = (u64)connection->local_port << 16 | connection->remote_port;
		u64 words[] = {connection->cookie, (u64)connection->sequence << 32 | ports, 0, 0};
		struct siphash hash;

		if (connection->transport == IPPROTO_UDP) {
			words[1] = ports;
			memcpy(&words[2], connection->remote_address, sizeof(connection->remote_address));
		}
		hash = siphash13_words(key[0], key[1], words, sizeof(words) / sizeof(words[0]));
		keys[row] = siphash13_output(&hash, 0);
	}
}
