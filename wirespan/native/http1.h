/* SPDX-License-Identifier: Apache-2.0 */
/* HTTP/1.x heads that need no parser: nearly all. What they are taken for is what receiver/protocols/http1.py says of them;
 * tests compare the two on any bytes.
 */
#ifndef WIRESPAN_HTTP1_H
#define WIRESPAN_HTTP1_H

#include "head.h"

#define HTTP1_TOKEN 32 /* the longest method that is looked at */
#define HTTP1_STATUS_LINE 12 /* up to the end of the status */

/* A request line without anything special, answered by a final status. */
struct http1 {
	struct head method;
	struct head path;
	u8 minor; /* of the version: '0' or '1' */
	u8 pipelined; /* another request follows */
	u16 status;
};

inline_always int http1_is_token(u8 byte)
{
	return is_letter(byte) || is_digit(byte) || (is_visible(byte) && strchr("!#$%&'*+.^_`|~-", byte));
}

/* Whether the parser may know these heads; if not, it does not. */
static int http1_possible(struct head request, struct head response)
{
	u32 at = 0;

	if (head_begins(response, "HTTP/1.", 7))
		return 1;
	while (at < request.size && at < HTTP1_TOKEN && http1_is_token(request.data[at]))
		at++;
	return at && at < request.size && request.data[at] == ' ';
}

/* The final status of a response that begins with it; 0: none, or an interim one, which another one follows. */
static u16 http1_status(struct head response)
{
	const u8 *digits = response.data + 9;
	u16 status;

	if (response.size < HTTP1_STATUS_LINE || !head_begins(response, "HTTP/1.", 7))
		return 0;
	if (!is_digit(digits[0]) || !is_digit(digits[1]) || !is_digit(digits[2]))
		return 0;
	status = (u16)((digits[0] - '0') * 100 + (digits[1] - '0') * 10 + digits[2] - '0');
	return status == 101 || status >= 200 ? status : 0;
}

/* The end of a path that is emitted as it was sent, from the slash at `at` on. */
static u32 http1_path_end(struct head request, u32 at)
{
	while (at < request.size && is_visible(request.data[at])) {
		u8 byte = request.data[at];

		if (byte == '?' || byte == '#' || byte == ';')
			break;
		at++;
	}
	return at;
}

static u32 http1_query_end(struct head request, u32 at)
{
	while (at < request.size && request.data[at] != ' ' && request.data[at] != '\r' && request.data[at] != '\n')
		at++;
	return at;
}

#define HTTP1_DIGITS 18 /* of the longest body */

static u32 http1_skip_blanks(struct head headers, u32 at)
{
	while (at < headers.size && (headers.data[at] == ' ' || headers.data[at] == '\t'))
		at++;
	return at;
}

/* Where the value begins of a header at `at` that has this name, of letters in lower case and hyphens; 0 if another. */
static u32 http1_value_of(struct head headers, u32 at, const char *name)
{
	for (; *name; name++, at++) {
		u8 byte = at < headers.size ? headers.data[at] : 0;

		if ((is_letter(byte) ? byte | 0x20 : byte) != *name)
			return 0;
	}
	at = http1_skip_blanks(headers, at);
	return at < headers.size && headers.data[at] == ':' ? http1_skip_blanks(headers, at + 1) : 0;
}

/* The length of the body that these headers announce; -1 if it is not to be known. */
static s64 http1_body_size(struct head headers)
{
	s64 size = 0;

	for (u32 at = 1; at < headers.size; at++) {
		s64 length = 0;
		u32 first, end;

		if (headers.data[at - 1] != '\n')
			continue;
		if (http1_value_of(headers, at, "transfer-encoding"))
			return -1;
		first = end = http1_value_of(headers, at, "content-length");
		if (!first)
			continue;
		while (end < headers.size && is_digit(headers.data[end]) && end - first < HTTP1_DIGITS)
			length = length * 10 + headers.data[end++] - '0';
		if (end == first || (end < headers.size && headers.data[end] != '\r' && headers.data[end] != '\n'))
			return -1;
		size += length;
	}
	return size;
}

/* Whether a request that is whole is followed by the beginning of another one. headers_end: 0 if that was not captured. */
static int http1_holds_another(struct head request, u32 headers_end)
{
	u32 end = headers_end, first;
	s64 body;

	if (!end || end >= request.size || head_begins(request, "CONNECT ", 8))
		return 0;
	body = http1_body_size((struct head){request.data, end});
	if (body < 0 || body >= request.size - end)
		return 0;
	end += (u32)body;
	while (end + 2 <= request.size && (request.data[end] == '\n' || !memcmp(request.data + end, "\r\n", 2)))
		end += request.data[end] == '\n' ? 1 : 2;
	if (end < request.size && request.data[end] == '\n')
		end++;
	first = end;
	while (end < request.size && end - first < HTTP1_TOKEN && http1_is_token(request.data[end]))
		end++;
	return end > first && (end == request.size || request.data[end] == ' ');
}

/* Whether it is a plain exchange, taken apart in `found`. headers_end: see above. */
static int http1_read(struct head request, struct head response, u32 headers_end, struct http1 *found)
{
	u32 at = 0;

	found->status = http1_status(response);
	if (!found->status)
		return 0;
	while (at < request.size && at < HTTP1_TOKEN && is_upper(request.data[at]))
		at++;
	if (!at || at + 1 >= request.size || request.data[at] != ' ' || request.data[at + 1] != '/')
		return 0;
	found->method = (struct head){request.data, at};
	found->path.data = request.data + at + 1;
	at = http1_path_end(request, at + 1);
	found->path.size = (u32)(request.data + at - found->path.data);
	if (at < request.size && request.data[at] == '?')
		at = http1_query_end(request, at);
	if (request.size - at < 11 || memcmp(request.data + at, " HTTP/1.", 8))
		return 0;
	found->minor = request.data[at + 8];
	found->pipelined = (u8)http1_holds_another(request, headers_end);
	return (found->minor == '0' || found->minor == '1') && !memcmp(request.data + at + 9, "\r\n", 2);
}

#endif
