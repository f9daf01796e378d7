/* SPDX-License-Identifier: Apache-2.0 */
/* A key for what a parser would make of a record's heads, so that it is asked once a key.
 *
 * Of exchanges that are told at a glance the key is a hash of only what matters: of HTTP the method, version and status,
 * of Redis the command and the error, of DNS the query without its id and the flags of the response, of TLS what a handshake
 * says in the clear, of other databases which one and the error, of an unknown protocol nothing. All others are hashed whole. What the kernel says is TLS or HTTP/2 is
 * not looked at for anything else. Keys are hashed with a
 * secret, so that a peer cannot make two of them meet, and nothing of a head can be got back from them.
 *
 * The path of an HTTP request is in no key. It is written out here, as a text of the span. So is its trace context.
 */
#include "dns.h"
#include "exchanges.h"
#include "http1.h"
#include "redis.h"
#include "siphash.h"
#include "tls.h"
#include "told.h"
#include "trace_context.h"

enum meaning {
	MEANING_HEADS, /* what a parser says of the whole heads */
	MEANING_UNKNOWN, /* no parser of ours knows it */
	MEANING_HTTP1,
	MEANING_REDIS,
	MEANING_DNS,
	MEANING_TLS,
	MEANING_HTTP2,
	MEANING_MESSAGE, /* no exchange */
	MEANING_DATABASE, /* in told */
};

/* Mirrored in receiver/operations.py.
 * containers: Redis' commands of two words. ask_all: there are other parsers, which may know what ours do not.
 * whole_http, whole_redis: more of their heads matters than what is told here, so that they are hashed whole.
 * origins: of each view the bytes that precede a path in its text, origin_ends[view] up to origin_ends[view + 1].
 */
struct head_rules {
	const u64 *key;
	const struct redis_word *containers;
	u64 container_count;
	const u8 *origins;
	const s64 *origin_ends;
	u64 ask_all;
	u64 whole_http;
	u64 whole_redis;
};

/* Of each record: its key and meaning, the place of its text (length -1: it has none), and enum context_flag. trace_ids
 * (high and low half) and parents are written only where a trace context was found. Counted is how many records have a flag
 * other than these two: an invalid context, a cut one. told: see told.h; 0 where another protocol was found first.
 */
struct head_columns {
	u64 *keys;
	u8 *meanings;
	u8 *texts;
	s64 *text_begins;
	s64 *text_lengths;
	u8 *contexts;
	u64 *trace_ids;
	u64 *parents;
	u64 *told;
	u64 flagged;
	u64 invalid;
	u64 cut;
};

#define WORDS(size) (((size) + sizeof(u64) - 1) / sizeof(u64))
/* whichever is longest: both heads, or two words of Redis and an error */
#define MESSAGE_WORDS (2 + WORDS(RESPONSE_HEAD) + WORDS(REQUEST_HEAD))

struct message {
	u64 words[MESSAGE_WORDS];
	u64 count;
};

u64 head_rules_size(void)
{
	return sizeof(struct head_rules);
}

u64 head_columns_size(void)
{
	return sizeof(struct head_columns);
}

/* The first word says what follows and how long it is: no two messages of different parts are the same. */
static void begin(struct message *message, enum meaning meaning, u64 view, u64 detail)
{
	message->words[0] = (u64)meaning | detail << 4 | view << 36;
	message->count = 1;
}

static void append(struct message *message, const void *data, u64 size)
{
	u64 count = WORDS(size);

	if (!count)
		return;
	message->words[message->count + count - 1] = 0;
	memcpy(&message->words[message->count], data, size);
	message->count += count;
}

static u64 hash(const struct message *message, const u64 *key)
{
	struct siphash state = siphash13_words(key[0], key[1], message->words, (u32)message->count);

	return siphash13_output(&state, 0);
}

static void of_http1(struct message *message, u64 view, const struct http1 *found)
{
	begin(message, MEANING_HTTP1, view,
	      found->method.size | (u64)found->minor << 8 | (u64)found->status << 16 | (u64)found->pipelined << 31);
	append(message, found->method.data, found->method.size);
}

static void of_redis(struct message *message, u64 view, const struct redis *found)
{
	begin(message, MEANING_REDIS, view, found->error.data ? found->error.size + 1 : 0);
	append(message, &found->command, sizeof(found->command));
	if (found->subcommand.text[0])
		append(message, &found->subcommand, sizeof(found->subcommand));
	append(message, found->error.data, found->error.size);
}

static void of_dns(struct message *message, u64 view, struct head request, const struct dns *found)
{
	begin(message, MEANING_DNS, view,
	      request.size | (u64)found->flags << 9 | (u64)found->answered << 25 | (u64)found->prefix << 26);
	append(message, request.data, request.size);
	memset((u8 *)&message->words[1] + found->prefix, 0, 2); /* the id */
}

static void of_tls(struct message *message, u64 view, const struct tls *found)
{
	const u64 sizes = found->client.server_name.size | (u64)found->client.protocols.size << 16 |
			  (u64)found->agreed.size << 32;
	const u64 answer = found->version | (u64)found->cipher << 16 | (u64)found->alert << 40;

	begin(message, MEANING_TLS, view,
	      found->handshake | (u64)found->client.whole << 1 | (u64)(found->client.server_name.data != NULL) << 2 |
		      (u64)(found->client.protocols.data != NULL) << 3);
	if (!found->handshake)
		return;
	append(message, &sizes, sizeof(sizes));
	append(message, &answer, sizeof(answer));
	append(message, found->client.server_name.data, found->client.server_name.size);
	append(message, found->client.protocols.data, found->client.protocols.size);
	append(message, found->agreed.data, found->agreed.size);
}

static void of_database(struct message *message, u64 view, u64 told)
{
	begin(message, MEANING_DATABASE, view, 0);
	append(message, &told, sizeof(told));
}

static void of_heads(struct message *message, u64 view, struct head request, struct head response, u64 told)
{
	begin(message, MEANING_HEADS, view, request.size | response.size << 16);
	append(message, request.data, request.size);
	append(message, response.data, response.size);
	append(message, &told, sizeof(told)); /* which sizes tell, too */
}

/* Appends the text of a path to those at `texts`; returns its length. */
static u64 write_text(const struct head_rules *rules, u64 view, struct head path, u8 *text)
{
	u64 begin = rules->origin_ends[view], size = rules->origin_ends[view + 1] - begin;

	memcpy(text, rules->origins + begin, size);
	memcpy(text + size, path.data, path.size);
	return size + path.size;
}

/* The captured bytes that this record has room for. */
static struct head request_of(const struct records *records, const struct exchange *record)
{
	u64 room = records->size - __builtin_offsetof(struct exchange, request_head);

	return (struct head){record->request_head,
			     record->request_captured < room ? record->request_captured : (u32)room};
}

static struct head response_of(const struct exchange *record)
{
	u32 captured = record->response_captured;

	return (struct head){record->response_head, captured < RESPONSE_HEAD ? captured : RESPONSE_HEAD};
}

static u16 server_port(const struct exchange *record)
{
	const struct connection_info *connection = &record->connection;

	return connection->role == ROLE_SERVER ? connection->local_port : connection->remote_port;
}

/* Writes what the request says of traces; returns the end of its headers, see struct request_headers. */
static u32 read_context(const struct exchange *record, struct head request, u64 row, struct head_columns *columns)
{
	struct request_headers headers;
	const struct trace_context *context = &headers.context;
	u16 port = server_port(record);

	request_headers_read(request, record->request_size > request.size, port, &headers);
	columns->contexts[row] = context->flags | otlp_grpc(request, port, record->protocol == PROTOCOL_HTTP2);
	if (!columns->contexts[row])
		return headers.end;
	columns->flagged += (columns->contexts[row] & ~(CONTEXT_INVALID | CONTEXT_CUT)) != 0;
	columns->invalid += (context->flags & CONTEXT_INVALID) != 0;
	columns->cut += (context->flags & CONTEXT_CUT) != 0;
	if (context->flags & CONTEXT_FOUND) {
		columns->trace_ids[2 * row] = context->trace_id[0];
		columns->trace_ids[2 * row + 1] = context->trace_id[1];
		columns->parents[row] = context->parent;
	}
	return headers.end;
}

/* Of what the kernel says cannot be read as requests. */
static void read_opaque(u8 protocol, u64 view, struct head request, struct head response, struct message *message)
{
	struct tls tls;

	if (protocol == PROTOCOL_HTTP2) {
		begin(message, MEANING_HTTP2, view, 0);
		return;
	}
	tls_read(request, response, &tls);
	of_tls(message, view, &tls);
}

/* Makes the message of these heads, and writes their text. headers_end: of the request. Returns its length, -1 if they have
 * none.
 */
static s64 read_heads(const struct head_rules *rules, u64 view, const struct exchange *record, struct head request,
		      u32 headers_end, struct message *message, u8 *text, u64 *told)
{
	struct head response = response_of(record);
	struct http1 http1;
	struct redis redis;
	struct dns dns;
	int possible;

	if (likely(!rules->whole_http) && http1_read(request, response, headers_end, &http1)) {
		of_http1(message, view, &http1);
		return (s64)write_text(rules, view, http1.path, text);
	}
	if (likely(!rules->whole_redis) &&
	    redis_read(request, response, rules->containers, rules->container_count, &redis)) {
		of_redis(message, view, &redis);
		return -1;
	}
	possible = http1_possible(request, response) || redis_possible(request, response);
	*told = told_database(record);
	if (*told && !rules->ask_all)
		of_database(message, view, *told);
	else if (tls_is_ciphertext(request, response))
		read_opaque(PROTOCOL_TLS, view, request, response, message);
	else if (!possible && !rules->ask_all && dns_read(request, response, &dns))
		of_dns(message, view, request, &dns);
	else if (!rules->ask_all && !possible && !dns_possible(request) && !tls_possible(request))
		begin(message, MEANING_UNKNOWN, view, 0);
	else
		of_heads(message, view, request, response, *told);
	return -1;
}

/* Of each record the key and the text. views: of each the number of its server as seen from its end, below 2**28. texts has
 * room for all captured requests and the origins of their views. Returns how much of it was used.
 */
u64 head_keys(const struct records *records, const struct head_rules *rules, const s64 *views,
	      struct head_columns *columns)
{
	struct message message;
	u64 used = 0;

	for (u64 row = 0; row < records->count; row++) {
		const struct exchange *record = record_at(records, row);
		struct head request = request_of(records, record);
		u32 headers_end = read_context(record, request, row, columns);
		s64 length = -1;

		columns->told[row] = 0;
		if (unlikely(record->flags & FLAG_MESSAGE))
			begin(&message, MEANING_MESSAGE, (u64)views[row], 0);
		else if (unlikely(is_opaque_protocol(record->protocol)))
			read_opaque(record->protocol, (u64)views[row], request, response_of(record), &message);
		else
			length = read_heads(rules, (u64)views[row], record, request, headers_end, &message,
					    columns->texts + used, &columns->told[row]);

		columns->keys[row] = hash(&message, rules->key);
		columns->meanings[row] = (u8)(message.words[0] & 0xf);
		columns->text_begins[row] = (s64)used;
		columns->text_lengths[row] = length;
		used += length > 0 ? (u64)length : 0;
	}
	return used;
}
