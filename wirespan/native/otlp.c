/* SPDX-License-Identifier: Apache-2.0 */
/* Spans as OTLP requests: first how large each span is and how many fit, then their bytes in one go. All lengths are known
 * before the first byte is written, so nothing is moved, and the room for a request is exact.
 */
#include "otlp.h"

#include "wire.h"

enum envelope {
	ENVELOPE_RESOURCE_SPANS, /* tag */
	ENVELOPE_SCOPE_SPANS, /* tag */
	ENVELOPE_SCOPE,
	ENVELOPE_SPAN, /* tag */
	ENVELOPE_SCOPE_SCHEMA,
	ENVELOPE_RESOURCE_SCHEMA,
};

u64 spans_size(void)
{
	return sizeof(struct spans);
}

u64 column_size(void)
{
	return sizeof(struct column);
}

inline_always u64 string_size(const struct strings *strings, u64 index)
{
	return (u64)(strings->ends[index + 1] - strings->ends[index]);
}

inline_always u8 *put_string(u8 *at, const struct strings *strings, u64 index)
{
	return put_bytes(at, strings->data + strings->ends[index], string_size(strings, index));
}

/* The lengths of a text attribute, from the inner to the outer message. */
struct text_sizes {
	u64 string;
	u64 value;
	u64 attribute;
};

inline_always struct text_sizes text_sizes(const struct column *column, u64 length)
{
	struct text_sizes sizes = {.string = length};

	sizes.value = 1 + varint_size(length) + length;
	sizes.attribute = column->prefix_size - 2 + varint_size(sizes.value) + sizes.value;
	return sizes;
}

static u64 text_size(const struct column *column, u64 row)
{
	u64 attribute;

	if (column->lengths[row] < 0)
		return 0;
	attribute = text_sizes(column, (u64)column->lengths[row]).attribute;
	return 1 + varint_size(attribute) + attribute;
}

static u64 bare_string_size(const struct column *column, u64 row)
{
	s64 length = column->lengths[row];

	return length < 0 ? 0 : 1 + varint_size((u64)length) + (u64)length;
}

/* NaN is the only number that differs from itself. */
inline_always u64 field_size(const struct column *column, u64 row)
{
	const u64 *words = column->values;
	const double *doubles = column->values;

	switch (column->kind) {
	case COLUMN_PARENT:
		return words[row] ? column->prefix_size + 8 : 0;
	case COLUMN_INTEGER:
		return (s64)words[row] < 0 ? 0 : column->prefix_size + column->width;
	case COLUMN_DOUBLE:
		return doubles[row] != doubles[row] ? 0 : column->prefix_size + 8;
	case COLUMN_TEXT:
		return text_size(column, row);
	case COLUMN_STRING:
		return bare_string_size(column, row);
	default:
		return string_size(&column->strings, words[row]);
	}
}

/* Whether a row points to nothing but what its column has. */
inline_always int is_within(const struct column *column, u64 row)
{
	const u64 *words = column->values;

	if (column->kind == COLUMN_FRAGMENT)
		return words[row] < column->strings.count;
	if ((column->kind == COLUMN_TEXT || column->kind == COLUMN_STRING) && column->lengths[row] > 0)
		return words[row] <= column->strings.count &&
		       (u64)column->lengths[row] <= column->strings.count - words[row];
	return 1;
}

/* Computes the content size of every span. Returns 0 where an index points behind its table, a defect of whoever made the
 * batch, which must not become one of memory.
 */
u64 spans_measure(const struct spans *spans)
{
	for (u64 i = 0; i < spans->count; i++)
		spans->sizes[i] = (u32)spans->fixed.size;
	for (u64 c = 0; c < spans->column_count; c++) {
		const struct column *column = &spans->columns[c];

		for (u64 i = 0; i < spans->count; i++) {
			u64 row = (u64)spans->order[i];

			if (!is_within(column, row))
				return 0;
			spans->sizes[i] += (u32)field_size(column, row);
		}
	}
	for (u64 i = 0; i < spans->count; i++)
		if ((u64)spans->resource[i] >= spans->resources.count)
			return 0;
	return 1;
}

inline_always u64 framed(const struct spans *spans, u64 i)
{
	return 1 + varint_size(spans->sizes[i]) + spans->sizes[i];
}

/* The lengths of a ResourceSpans whose spans take `content` bytes. */
struct group_sizes {
	u64 scope_spans;
	u64 resource_spans;
	u64 all;
};

inline_always struct group_sizes group_sizes(const struct spans *spans, u64 resource, u64 content)
{
	struct group_sizes sizes;

	sizes.scope_spans = string_size(&spans->envelope, ENVELOPE_SCOPE) + content +
			    string_size(&spans->envelope, ENVELOPE_SCOPE_SCHEMA);
	sizes.resource_spans = string_size(&spans->resources, resource) + 1 + varint_size(sizes.scope_spans) +
			       sizes.scope_spans + string_size(&spans->envelope, ENVELOPE_RESOURCE_SCHEMA);
	sizes.all = 1 + varint_size(sizes.resource_spans) + sizes.resource_spans;
	return sizes;
}

inline_always u64 resource_of(const struct spans *spans, u64 i)
{
	return (u64)spans->resource[spans->order[i]];
}

/* Where the request ends that begins with span `first`, and its size. It has at most `limit` bytes, unless a single span or
 * a resource alone is larger: then that span travels alone, and that resource with all of its spans.
 */
u64 request_end(const struct spans *spans, u64 first, u64 limit, u64 *size)
{
	u64 i = first;

	*size = 0;
	while (i < spans->count) {
		u64 resource = resource_of(spans, i), content = 0;
		int too_large = i == first && group_sizes(spans, resource, 0).all >= limit;

		for (; i < spans->count && resource_of(spans, i) == resource; i++) {
			u64 with = content + framed(spans, i);

			if (i > first && !too_large && *size + group_sizes(spans, resource, with).all > limit)
				break;
			content = with;
		}
		if (content)
			*size += group_sizes(spans, resource, content).all;
		if (i < spans->count && resource_of(spans, i) == resource)
			break;
	}
	return i;
}

static u8 *put_text(u8 *at, const struct column *column, u64 row)
{
	struct text_sizes sizes = text_sizes(column, (u64)column->lengths[row]);
	const s64 *begins = column->values;

	*at++ = column->prefix[0];
	at = put_varint(at, sizes.attribute);
	at = put_bytes(at, column->prefix + 1, column->prefix_size - 2);
	at = put_varint(at, sizes.value);
	*at++ = column->prefix[column->prefix_size - 1];
	at = put_varint(at, sizes.string);
	return put_bytes(at, column->strings.data + begins[row], sizes.string);
}

static u8 *put_bare_string(u8 *at, const struct column *column, u64 row)
{
	const s64 *begins = column->values;
	u64 length = (u64)column->lengths[row];

	*at++ = column->prefix[0];
	at = put_varint(at, length);
	return put_bytes(at, column->strings.data + begins[row], length);
}

static u8 *put_field(u8 *at, const struct column *column, u64 row)
{
	const u64 *words = column->values;

	if (column->kind == COLUMN_FRAGMENT)
		return put_string(at, &column->strings, words[row]);
	if (!field_size(column, row))
		return at;
	if (column->kind == COLUMN_TEXT)
		return put_text(at, column, row);
	if (column->kind == COLUMN_STRING)
		return put_bare_string(at, column, row);
	at = put_bytes(at, column->prefix, column->prefix_size);
	switch (column->kind) {
	case COLUMN_PARENT:
		return put_id(at, words[row]);
	case COLUMN_INTEGER:
		return put_padded_varint(at, words[row], column->width);
	default:
		return put_fixed64(at, words[row]);
	}
}

static u8 *put_span(u8 *at, const struct spans *spans, u64 i)
{
	const struct span_start *fixed = &spans->fixed;
	u64 row = (u64)spans->order[i];
	u8 *start;

	at = put_string(at, &spans->envelope, ENVELOPE_SPAN);
	start = put_varint(at, spans->sizes[i]);
	at = put_bytes(start, fixed->bytes, fixed->size);
	put_id(put_id(start + fixed->trace_id, spans->trace_id[2 * row]), spans->trace_id[2 * row + 1]);
	put_id(start + fixed->span_id, spans->span_id[row]);
	start[fixed->kind] = spans->kind[row];
	put_fixed64(start + fixed->start, spans->start[row]);
	put_fixed64(start + fixed->end, spans->end[row]);
	for (u64 c = 0; c < spans->column_count; c++)
		at = put_field(at, &spans->columns[c], row);
	return at;
}

static u8 *put_group(u8 *at, const struct spans *spans, u64 first, u64 last)
{
	u64 resource = resource_of(spans, first), content = 0;
	struct group_sizes sizes;

	for (u64 i = first; i < last; i++)
		content += framed(spans, i);
	sizes = group_sizes(spans, resource, content);
	at = put_string(at, &spans->envelope, ENVELOPE_RESOURCE_SPANS);
	at = put_varint(at, sizes.resource_spans);
	at = put_string(at, &spans->resources, resource);
	at = put_string(at, &spans->envelope, ENVELOPE_SCOPE_SPANS);
	at = put_varint(at, sizes.scope_spans);
	at = put_string(at, &spans->envelope, ENVELOPE_SCOPE);
	for (u64 i = first; i < last; i++)
		at = put_span(at, spans, i);
	at = put_string(at, &spans->envelope, ENVELOPE_SCOPE_SCHEMA);
	return put_string(at, &spans->envelope, ENVELOPE_RESOURCE_SCHEMA);
}

/* Writes the request of spans `first` to `last` (exclusive); returns its size, which is what request_end said. */
u64 request_write(const struct spans *spans, u64 first, u64 last, u8 *out)
{
	u8 *at = out;

	while (first < last) {
		u64 end = first + 1;

		while (end < last && resource_of(spans, end) == resource_of(spans, first))
			end++;
		at = put_group(at, spans, first, end);
		first = end;
	}
	return (u64)(at - out);
}
