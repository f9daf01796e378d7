/* SPDX-License-Identifier: Apache-2.0 */
/* Redis heads of which a few words say all: nearly all. What they are taken for is what receiver/protocols/redis.py says of
 * them; tests compare the two on any bytes.
 */
#ifndef WIRESPAN_REDIS_H
#define WIRESPAN_REDIS_H

#include "head.h"

#define REDIS_WORD 32 /* the longest word that is looked at */
#define REDIS_COUNT_DIGITS 7
#define REDIS_TYPES "+-:_#,($!=;*~>%|."

/* Upper case, the rest zero. */
struct redis_word {
	char text[REDIS_WORD];
};

/* A command whose name is complete, and the beginning of its reply. */
struct redis {
	struct redis_word command;
	struct redis_word subcommand;
	struct head error; /* the first word of an error reply; data is null for any other reply */
};

static int redis_is_type(struct head response)
{
	return !response.size || (response.data[0] && strchr(REDIS_TYPES, response.data[0]));
}

static int redis_inline_letter(u8 byte)
{
	return is_letter(byte) || byte == '.' || byte == '_' || byte == '-';
}

/* Whether the parser may know these heads; if not, it does not. */
static int redis_possible(struct head request, struct head response)
{
	const u8 *data = request.data;

	if (request.size && data[0] == '*')
		return redis_is_type(response);
	return request.size > 3 && is_letter(data[0]) && redis_inline_letter(data[1]) && redis_inline_letter(data[2]) &&
	       response.size && response.data[0] && strchr("+-$:*", response.data[0]);
}

/* Past the end of a line at `at`; 0 if there is none. */
static u32 redis_line_end(struct head head, u32 at)
{
	return head.size - at >= 2 && head.data[at] == '\r' && head.data[at + 1] == '\n' ? at + 2 : 0;
}

/* Past the digits at `at`, at most `most` of them. */
static u32 redis_digits_end(struct head head, u32 at, u32 most)
{
	u32 end = at;

	while (end < head.size && end - at < most && is_digit(head.data[end]))
		end++;
	return end;
}

/* Past the bulk string of up to 32 visible characters at `at`, which becomes `word`; 0 if there is another thing. */
static u32 redis_read_word(struct head request, u32 at, struct redis_word *word)
{
	u32 length = 0, end;

	if (at >= request.size || request.data[at] != '$')
		return 0;
	end = redis_digits_end(request, at + 1, 2);
	if (end == at + 1)
		return 0;
	for (u32 digit = at + 1; digit < end; digit++)
		length = length * 10 + request.data[digit] - '0';
	at = redis_line_end(request, end);
	if (!at || !length || length > REDIS_WORD || request.size - at < length)
		return 0;
	for (u32 i = 0; i < length; i++) {
		u8 byte = request.data[at + i];

		if (!is_visible(byte))
			return 0;
		word->text[i] = (char)(byte >= 'a' && byte <= 'z' ? byte - 0x20 : byte);
	}
	return redis_line_end(request, at + length);
}

/* The first word of an error's line; empty if it begins with a space. */
static struct head redis_error(struct head response)
{
	u32 end = 1;

	while (end < response.size && response.data[end] != ' ' && !redis_line_end(response, end))
		end++;
	return (struct head){response.data + 1, end - 1};
}

static int redis_is_container(const struct redis_word *command, const struct redis_word *containers, u64 count)
{
	for (u64 i = 0; i < count; i++)
		if (containers[i].text[0] == command->text[0] && !memcmp(&containers[i], command, sizeof(*command)))
			return 1;
	return 0;
}

/* Whether it is a plain exchange, taken apart in `found`. containers: commands whose second word is a part of the name. */
static int redis_read(struct head request, struct head response, const struct redis_word *containers, u64 count,
		      struct redis *found)
{
	u32 at;

	if (request.size < 2 || request.data[0] != '*' || request.data[1] == '0' || !redis_is_type(response))
		return 0;
	memset(found, 0, sizeof(*found));
	at = redis_digits_end(request, 1, REDIS_COUNT_DIGITS);
	at = at > 1 ? redis_line_end(request, at) : 0;
	at = at ? redis_read_word(request, at, &found->command) : 0;
	if (!at)
		return 0;
	if (redis_is_container(&found->command, containers, count) && !redis_read_word(request, at, &found->subcommand))
		return 0;
	if (response.size && response.data[0] == '!')
		return 0;
	if (response.size && response.data[0] == '-')
		found->error = redis_error(response);
	return 1;
}

#endif
