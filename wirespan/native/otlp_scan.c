/* SPDX-License-Identifier: Apache-2.0 */
/* Whether bytes are a request of OTLP, and how many items are in it, in one pass and without memory of its own.
 *
 * What passes is joined with the requests of others and sent on as it is, so a single bad string would have all of them
 * refused: every field is looked at as a decoder would, down to the UTF-8 of strings and the lengths of ids, which the
 * Collector refuses a request for. Fields that are not known are skipped, as protobuf says.
 *
 * The messages are those of opentelemetry-proto 1.11: trace/v1, metrics/v1, logs/v1, common/v1 and resource/v1.
 */
#include "types.h"
#include "utf8.h"

/* Decoders of protobuf refuse more than a hundred. */
#define DEEPEST 96
#define MOST_FIELDS 17
#define MALFORMED (-1)

enum wire_type {
	WIRE_VARINT = 0,
	WIRE_FIXED64 = 1,
	WIRE_LENGTH = 2,
	WIRE_FIXED32 = 5
};

/* What a field is; from MESSAGES on a message, of the type that is the rest. */
enum kind {
	UNKNOWN,
	VARINT,
	FIXED32,
	FIXED64,
	STRING,
	BYTES,
	TRACE_ID,
	SPAN_ID,
	VARINTS, /* repeated, and so packed or not */
	FIXED64S,
	MESSAGES,
};

enum message {
	TRACES,
	METRICS,
	LOGS,
	RESOURCE_SPANS,
	RESOURCE_METRICS,
	RESOURCE_LOGS,
	RESOURCE,
	ENTITY,
	SCOPE_SPANS,
	SCOPE_METRICS,
	SCOPE_LOGS,
	SCOPE,
	SPAN,
	EVENT,
	LINK,
	STATUS,
	METRIC,
	GAUGE,
	SUM,
	HISTOGRAM,
	EXPONENTIAL_HISTOGRAM,
	SUMMARY,
	NUMBER_POINT,
	HISTOGRAM_POINT,
	EXPONENTIAL_POINT,
	BUCKETS,
	SUMMARY_POINT,
	QUANTILE,
	EXEMPLAR,
	LOG_RECORD,
	KEY_VALUE,
	ANY_VALUE,
	ARRAY,
	KEY_VALUES,
};

#define OF(message) (MESSAGES + (message))

static const u8 fields[][MOST_FIELDS] = {
	[TRACES] = {[1] = OF(RESOURCE_SPANS)},
	[METRICS] = {[1] = OF(RESOURCE_METRICS)},
	[LOGS] = {[1] = OF(RESOURCE_LOGS)},
	[RESOURCE_SPANS] = {[1] = OF(RESOURCE), [2] = OF(SCOPE_SPANS), [3] = STRING},
	[RESOURCE_METRICS] = {[1] = OF(RESOURCE), [2] = OF(SCOPE_METRICS), [3] = STRING},
	[RESOURCE_LOGS] = {[1] = OF(RESOURCE), [2] = OF(SCOPE_LOGS), [3] = STRING},
	[RESOURCE] = {[1] = OF(KEY_VALUE), [2] = VARINT, [3] = OF(ENTITY)},
	[ENTITY] = {[1] = STRING, [2] = STRING, [3] = STRING, [4] = STRING},
	[SCOPE_SPANS] = {[1] = OF(SCOPE), [2] = OF(SPAN), [3] = STRING},
	[SCOPE_METRICS] = {[1] = OF(SCOPE), [2] = OF(METRIC), [3] = STRING},
	[SCOPE_LOGS] = {[1] = OF(SCOPE), [2] = OF(LOG_RECORD), [3] = STRING},
	[SCOPE] = {[1] = STRING, [2] = STRING, [3] = OF(KEY_VALUE), [4] = VARINT},
	[SPAN] = {[1] = TRACE_ID,
		  [2] = SPAN_ID,
		  [3] = STRING,
		  [4] = SPAN_ID,
		  [5] = STRING,
		  [6] = VARINT,
		  [7] = FIXED64,
		  [8] = FIXED64,
		  [9] = OF(KEY_VALUE),
		  [10] = VARINT,
		  [11] = OF(EVENT),
		  [12] = VARINT,
		  [13] = OF(LINK),
		  [14] = VARINT,
		  [15] = OF(STATUS),
		  [16] = FIXED32},
	[EVENT] = {[1] = FIXED64, [2] = STRING, [3] = OF(KEY_VALUE), [4] = VARINT},
	[LINK] = {[1] = TRACE_ID, [2] = SPAN_ID, [3] = STRING, [4] = OF(KEY_VALUE), [5] = VARINT, [6] = FIXED32},
	[STATUS] = {[2] = STRING, [3] = VARINT},
	[METRIC] = {[1] = STRING,
		    [2] = STRING,
		    [3] = STRING,
		    [5] = OF(GAUGE),
		    [7] = OF(SUM),
		    [9] = OF(HISTOGRAM),
		    [10] = OF(EXPONENTIAL_HISTOGRAM),
		    [11] = OF(SUMMARY),
		    [12] = OF(KEY_VALUE)},
	[GAUGE] = {[1] = OF(NUMBER_POINT)},
	[SUM] = {[1] = OF(NUMBER_POINT), [2] = VARINT, [3] = VARINT},
	[HISTOGRAM] = {[1] = OF(HISTOGRAM_POINT), [2] = VARINT},
	[EXPONENTIAL_HISTOGRAM] = {[1] = OF(EXPONENTIAL_POINT), [2] = VARINT},
	[SUMMARY] = {[1] = OF(SUMMARY_POINT)},
	[NUMBER_POINT] = {[2] = FIXED64,
			  [3] = FIXED64,
			  [4] = FIXED64,
			  [5] = OF(EXEMPLAR),
			  [6] = FIXED64,
			  [7] = OF(KEY_VALUE),
			  [8] = VARINT},
	[HISTOGRAM_POINT] = {[2] = FIXED64,
			     [3] = FIXED64,
			     [4] = FIXED64,
			     [5] = FIXED64,
			     [6] = FIXED64S,
			     [7] = FIXED64S,
			     [8] = OF(EXEMPLAR),
			     [9] = OF(KEY_VALUE),
			     [10] = VARINT,
			     [11] = FIXED64,
			     [12] = FIXED64},
	[EXPONENTIAL_POINT] = {[1] = OF(KEY_VALUE),
			       [2] = FIXED64,
			       [3] = FIXED64,
			       [4] = FIXED64,
			       [5] = FIXED64,
			       [6] = VARINT,
			       [7] = FIXED64,
			       [8] = OF(BUCKETS),
			       [9] = OF(BUCKETS),
			       [10] = VARINT,
			       [11] = OF(EXEMPLAR),
			       [12] = FIXED64,
			       [13] = FIXED64,
			       [14] = FIXED64},
	[BUCKETS] = {[1] = VARINT, [2] = VARINTS},
	[SUMMARY_POINT] = {[2] = FIXED64,
			   [3] = FIXED64,
			   [4] = FIXED64,
			   [5] = FIXED64,
			   [6] = OF(QUANTILE),
			   [7] = OF(KEY_VALUE),
			   [8] = VARINT},
	[QUANTILE] = {[1] = FIXED64, [2] = FIXED64},
	[EXEMPLAR] = {[2] = FIXED64, [3] = FIXED64, [4] = SPAN_ID, [5] = TRACE_ID, [6] = FIXED64, [7] = OF(KEY_VALUE)},
	[LOG_RECORD] = {[1] = FIXED64,
			[2] = VARINT,
			[3] = STRING,
			[5] = OF(ANY_VALUE),
			[6] = OF(KEY_VALUE),
			[7] = VARINT,
			[8] = FIXED32,
			[9] = TRACE_ID,
			[10] = SPAN_ID,
			[11] = FIXED64,
			[12] = STRING},
	[KEY_VALUE] = {[1] = STRING, [2] = OF(ANY_VALUE), [3] = VARINT},
	[ANY_VALUE] = {[1] = STRING,
		       [2] = VARINT,
		       [3] = VARINT,
		       [4] = FIXED64,
		       [5] = OF(ARRAY),
		       [6] = OF(KEY_VALUES),
		       [7] = BYTES,
		       [8] = VARINT},
	[ARRAY] = {[1] = OF(ANY_VALUE)},
	[KEY_VALUES] = {[1] = OF(KEY_VALUE)},
};

static const u8 is_item[sizeof(fields) / MOST_FIELDS] = {
	[SPAN] = 1,          [NUMBER_POINT] = 1, [HISTOGRAM_POINT] = 1, [EXPONENTIAL_POINT] = 1,
	[SUMMARY_POINT] = 1, [LOG_RECORD] = 1,
};

struct reader {
	const u8 *at;
	const u8 *end;
};

/* Whether there is a varint of at most 64 bits. */
inline_always int read_varint(struct reader *reader, u64 *value)
{
	u64 found = 0;

	for (u32 shift = 0; shift < 70 && reader->at < reader->end; shift += 7) {
		u8 byte = *reader->at++;

		if (shift == 63 && byte > 1)
			return 0;
		found |= (u64)(byte & 0x7f) << shift;
		if (byte < 0x80) {
			*value = found;
			return 1;
		}
	}
	return 0;
}

/* Whether there are so many bytes, which are then behind. */
inline_always int skip(struct reader *reader, u64 size)
{
	if (size > (u64)(reader->end - reader->at))
		return 0;
	reader->at += size;
	return 1;
}

static int are_varints(const u8 *bytes, u64 size)
{
	struct reader reader = {bytes, bytes + size};
	u64 value;

	while (reader.at < reader.end)
		if (!read_varint(&reader, &value))
			return 0;
	return 1;
}

/* Whether the bytes of a field with a length are what its kind says. */
static int is_valid(enum kind kind, const u8 *bytes, u64 size)
{
	switch (kind) {
	case STRING:
		return is_utf8(bytes, size);
	case TRACE_ID:
		return size == 16 || !size;
	case SPAN_ID:
		return size == 8 || !size;
	case VARINTS:
		return are_varints(bytes, size);
	case FIXED64S:
		return size % 8 == 0;
	case UNKNOWN:
	case BYTES:
		return 1;
	default:
		return 0;
	}
}

/* Whether a field without a length is as its kind says; it is then behind. */
static int read_number(struct reader *reader, enum kind kind, enum wire_type wire_type)
{
	u64 value;

	switch (wire_type) {
	case WIRE_VARINT:
		return (kind == VARINT || kind == VARINTS || kind == UNKNOWN) && read_varint(reader, &value);
	case WIRE_FIXED64:
		return (kind == FIXED64 || kind == FIXED64S || kind == UNKNOWN) && skip(reader, 8);
	case WIRE_FIXED32:
		return (kind == FIXED32 || kind == UNKNOWN) && skip(reader, 4);
	default: /* groups, which no message has */
		return 0;
	}
}

/* The items of a request, which is a message of this kind (TRACES, METRICS, LOGS); MALFORMED if it is none. */
s64 otlp_items(u64 message, const u8 *bytes, u64 size)
{
	struct reader reader = {bytes, bytes + size};
	const u8 *ends[DEEPEST];
	u8 messages[DEEPEST];
	u64 depth = 0, tag, length;
	s64 items = 0;

	for (;;) {
		while (reader.at == reader.end) {
			if (!depth)
				return items;
			depth--;
			reader.end = ends[depth];
			message = messages[depth];
		}
		if (!read_varint(&reader, &tag) || tag > 0xffffffff || tag < 8)
			return MALFORMED;
		enum kind kind = tag >> 3 < MOST_FIELDS ? fields[message][tag >> 3] : UNKNOWN;

		if ((tag & 7) != WIRE_LENGTH) {
			if (!read_number(&reader, kind, tag & 7))
				return MALFORMED;
			continue;
		}
		if (!read_varint(&reader, &length) || length > (u64)(reader.end - reader.at))
			return MALFORMED;
		if (kind < MESSAGES) {
			if (!is_valid(kind, reader.at, length))
				return MALFORMED;
			reader.at += length;
			continue;
		}
		if (depth == DEEPEST)
			return MALFORMED;
		ends[depth] = reader.end;
		messages[depth++] = (u8)message;
		reader.end = reader.at + length;
		message = kind - MESSAGES;
		items += is_item[message];
	}
}
