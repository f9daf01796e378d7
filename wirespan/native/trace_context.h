/* SPDX-License-Identifier: Apache-2.0 */
/* What the headers of an HTTP/1.x request say of traces: its W3C Trace Context, and whether it exports OTLP.
 *
 * One pass over the captured head, line by line. A `traceparent` counts only if it is there once and just as
 * https://www.w3.org/TR/trace-context-2/#traceparent-header has it; a receiver must not repair what is malformed.
 */
#ifndef WIRESPAN_TRACE_CONTEXT_H
#define WIRESPAN_TRACE_CONTEXT_H

#include "head.h"

enum context_flag {
	CONTEXT_FOUND = 1, /* a valid traceparent */
	CONTEXT_SAMPLED = 2, /* whose sender may have recorded its span */
	CONTEXT_INVALID = 4, /* malformed, or given twice */
	CONTEXT_CUT = 8, /* the headers were not captured whole, and those that were have none */
	CONTEXT_OTLP_TRACES = 16, /* the request exports spans */
	CONTEXT_OTLP_OTHER = 32, /* the request exports metrics or logs */
};

struct trace_context {
	u64 trace_id[2]; /* high and low half */
	u64 parent;
	u8 flags; /* enum context_flag */
};

/* What the search found. end: of the headers, behind the empty line; 0 if that was not captured. */
struct request_headers {
	u32 end;
	struct trace_context context;
};

/* Assigned to OTLP by IANA. */
#define OTLP_GRPC_PORT 4317
#define OTLP_HTTP_PORT 4318

#define TRACEPARENT_SIZE 55 /* of version 00: "00-", 32 digits, "-", 16 digits, "-", 2 digits */
#define TRACE_FLAG_SAMPLED 1

/* The value of a lower-case hexadecimal digit; 16: it is none. */
inline_always u32 hex_digit(u8 byte)
{
	if (is_digit(byte))
		return byte - '0';
	return byte >= 'a' && byte <= 'f' ? byte - 'a' + 10u : 16;
}

/* Reads `count` <= 16 digits into *value; 0 if one of them is none. */
inline_always int hex_read(const u8 *digits, u32 count, u64 *value)
{
	u32 wrong = 0;

	*value = 0;
	for (u32 i = 0; i < count; i++) {
		u32 digit = hex_digit(digits[i]);

		wrong |= digit;
		*value = *value << 4 | (digit & 15);
	}
	return wrong < 16;
}

/* Takes a header's value apart; 0 if it is not valid. Later versions may go on behind another hyphen (4.3). */
static int traceparent_read(const u8 *value, u32 size, struct trace_context *context)
{
	u64 version, flags;

	if (size < TRACEPARENT_SIZE || value[2] != '-' || value[35] != '-' || value[52] != '-')
		return 0;
	if (!hex_read(value, 2, &version) || version == 0xff || (!version && size != TRACEPARENT_SIZE))
		return 0;
	if (size > TRACEPARENT_SIZE && value[TRACEPARENT_SIZE] != '-')
		return 0;
	if (!hex_read(value + 3, 16, &context->trace_id[0]) || !hex_read(value + 19, 16, &context->trace_id[1]))
		return 0;
	if (!hex_read(value + 36, 16, &context->parent) || !hex_read(value + 53, 2, &flags))
		return 0;
	if (!(context->trace_id[0] | context->trace_id[1]) || !context->parent)
		return 0;
	context->flags |= CONTEXT_FOUND | (flags & TRACE_FLAG_SAMPLED ? CONTEXT_SAMPLED : 0);
	return 1;
}

inline_always int is_blank(u8 byte)
{
	return byte == ' ' || byte == '\t' || byte == '\r';
}

/* Whether `line` is a header of this name, of lower-case letters and hyphens; then *value is its trimmed value. */
inline_always int header_is(struct head line, const char *name, u32 name_size, struct head *value)
{
	u32 begin = name_size + 1, end = line.size;

	if (line.size <= name_size || line.data[name_size] != ':')
		return 0;
	for (u32 i = 0; i < name_size; i++)
		if ((is_letter(line.data[i]) ? line.data[i] | 0x20 : line.data[i]) != name[i])
			return 0;
	while (begin < end && is_blank(line.data[begin]))
		begin++;
	while (end > begin && is_blank(line.data[end - 1]))
		end--;
	*value = (struct head){line.data + begin, end - begin};
	return 1;
}

#define NAME(text) text, sizeof(text) - 1

/* A line of the headers, without its line feed. export: CONTEXT_OTLP_… that the request is if its headers agree. */
inline_always void header_read(struct head line, u8 export, struct trace_context *context)
{
	struct head value;
	u8 first = line.size ? line.data[0] | 0x20 : 0;

	if (first == 't' && header_is(line, NAME("traceparent"), &value)) {
		int given = context->flags & (CONTEXT_FOUND | CONTEXT_INVALID);

		context->flags &= ~(CONTEXT_FOUND | CONTEXT_SAMPLED);
		if (given || !traceparent_read(value.data, value.size, context))
			context->flags |= CONTEXT_INVALID;
	} else if (export && first == 'c' && header_is(line, NAME("content-type"), &value)) {
		if (head_begins(value, NAME("application/x-protobuf")))
			context->flags |= export;
	} else if (export && first == 'u' && header_is(line, NAME("user-agent"), &value)) {
		if (head_begins(value, NAME("OTel-OTLP-Exporter-")))
			context->flags |= export;
	}
}

#define VERSION_SIZE 10 /* of " HTTP/1.1\r" */

/* Whether it begins as a request line of HTTP/1.x does: a method, a target and, if the line is whole, a version. */
static int request_line_possible(struct head line, int whole)
{
	u32 at = 0;

	while (at < line.size && is_upper(line.data[at]))
		at++;
	if (!at || at + 1 >= line.size || line.data[at] != ' ' || !is_visible(line.data[at + 1]))
		return 0;
	if (!whole)
		return 1;
	return line.size > at + 1 + VERSION_SIZE &&
	       !memcmp(line.data + line.size - VERSION_SIZE, " HTTP/1.", VERSION_SIZE - 2) &&
	       line.data[line.size - 1] == '\r';
}

inline_always int head_ends(struct head head, const char *text, u32 size)
{
	return head.size >= size && !memcmp(head.data + head.size - size, text, size);
}

/* What a whole request line asks for: the path of one of OTLP's three signals, or 0. Endpoints may have a prefix. */
static u8 otlp_path(struct head line)
{
	const u8 *query;
	struct head path;

	if (!head_begins(line, NAME("POST ")))
		return 0;
	query = memchr(line.data, '?', line.size);
	path = (struct head){line.data, query ? (u32)(query - line.data) : line.size - VERSION_SIZE};
	if (head_ends(path, NAME("/v1/traces")))
		return CONTEXT_OTLP_TRACES;
	return head_ends(path, NAME("/v1/metrics")) || head_ends(path, NAME("/v1/logs")) ? CONTEXT_OTLP_OTHER : 0;
}

/* The line of `request` that begins at `at`, without its line feed; *whole: whether that was captured. */
inline_always struct head line_at(struct head request, u32 at, int *whole)
{
	const u8 *found = at < request.size ? memchr(request.data + at, '\n', request.size - at) : NULL;

	*whole = found != NULL;
	return (struct head){request.data + at, found ? (u32)(found - request.data) - at : request.size - at};
}

/* Reads the headers of a request. cut: it has more bytes than were captured. port: of its server. */
static void request_headers_read(struct head request, int cut, u16 port, struct request_headers *found)
{
	int whole, ended = 0;
	struct head line = line_at(request, 0, &whole);
	u32 at = line.size + 1;
	u8 export;

	found->end = 0;
	found->context.flags = 0;
	if (!request_line_possible(line, whole))
		return;
	export = whole ? otlp_path(line) : 0;
	if (port == OTLP_HTTP_PORT)
		found->context.flags = export;
	while (whole) {
		int after_return = line.size && line.data[line.size - 1] == '\r';

		line = line_at(request, at, &whole);
		if (!whole)
			break;
		at += line.size + 1;
		if (!line.size || (line.size == 1 && line.data[0] == '\r')) {
			ended = 1;
			found->end = line.size && after_return ? at : 0;
		}
		if (found->end)
			break;
		if (!ended)
			header_read(line, export, &found->context);
	}
	if (cut && !ended && !(found->context.flags & (CONTEXT_FOUND | CONTEXT_INVALID)))
		found->context.flags |= CONTEXT_CUT;
}

#define FRAME_HEADER 9 /* RFC 9113, 4.1: length (3), type, flags, stream (4) */
#define FRAME_TYPES 10

/* Whether a message may be a frame of HTTP/2, of a type of RFC 9113. */
static int http2_possible(struct head request)
{
	return request.size >= FRAME_HEADER && !request.data[0] && request.data[3] < FRAME_TYPES &&
	       !(request.data[5] & 0x80);
}

/* A gRPC request has its path compressed in a state that is not known here, so its port has to tell. What it exports is
 * taken for spans. http2: the connection began with the preface, as those do not that are older than the programs.
 */
inline_always u8 otlp_grpc(struct head request, u16 port, int http2)
{
	return port == OTLP_GRPC_PORT && (http2 || http2_possible(request)) ? CONTEXT_OTLP_TRACES : 0;
}

#endif
