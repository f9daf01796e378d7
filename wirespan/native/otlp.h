/* SPDX-License-Identifier: Apache-2.0 */
/* A batch of spans as columns, ready to be written as OTLP. Field numbers and names are in wirespan/pipeline/otlp_fields.py:
 * they come here as encoded prefixes. The structs are mirrored in wirespan/pipeline/otlp_columns.py.
 */
#ifndef WIRESPAN_OTLP_H
#define WIRESPAN_OTLP_H

#include "types.h"

/* Byte strings back to back: string i is data[ends[i]] up to data[ends[i + 1]]. For texts, which say themselves where they
 * are, only data and its size, as count.
 */
struct strings {
	const u8 *data;
	const s64 *ends;
	u64 count;
};

enum column_kind {
	COLUMN_PARENT, /* u64, an id; 0: absent */
	COLUMN_INTEGER, /* s64, as a varint of `width` bytes; negative: absent */
	COLUMN_DOUBLE, /* double; NaN: absent */
	COLUMN_TEXT, /* s64, where in `strings.data` it begins; its length is in `lengths`, negative: absent */
	COLUMN_FRAGMENT, /* s64, an index into `strings`, whose bytes are written as they are */
	COLUMN_STRING, /* as COLUMN_TEXT, but a field of the span itself */
};

/* A field of a span that not every span has. prefix: what precedes the value on the wire; of a text, whose lengths lie
 * between them: the attribute's tag (one byte), the key with the value's tag, the string's tag (one byte). Of a string:
 * its tag (one byte).
 */
struct column {
	const void *values;
	const u8 *prefix;
	u64 prefix_size;
	const s64 *lengths;
	struct strings strings;
	u64 kind;
	u64 width;
};

/* What every span has, in the order of these offsets into `start`, which has their tags. */
struct span_start {
	const u8 *bytes;
	u64 size;
	u64 trace_id;
	u64 span_id;
	u64 kind;
	u64 start;
	u64 end;
};

/* count: spans. order: rows in the order in which they are written, those of a resource together. sizes: room for the
 * content size of each, in that order. head, middle, tail: the constant bytes of a ResourceSpans: tag; tag and scope
 * around the ScopeSpans' length; what follows the spans within it; what follows it.
 */
struct spans {
	u64 count;
	const s64 *order;
	const u64 *trace_id;
	const u64 *span_id;
	const u8 *kind;
	const u64 *start;
	const u64 *end;
	const s64 *resource;
	struct strings resources;
	struct span_start fixed;
	const struct column *columns;
	u64 column_count;
	struct strings envelope;
	u32 *sizes;
};

#endif
