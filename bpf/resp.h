/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* How long is the RESP command that these bytes begin? Tells one Redis command from a pipeline without a parser.
 *
 *   *<arguments>\r\n ( $<length>\r\n <length bytes>\r\n ) * arguments
 *
 * Only the headers are looked at. bpf_loop() keeps the verifier's work independent of the number of steps; the host
 * tests bring a loop of that name.
 */
#ifndef WIRESPAN_RESP_H
#define WIRESPAN_RESP_H

#include "exchange.h"

#define RESP_STEPS 128 /* bytes of headers looked at; a longer command changes to segment mode: right, only dearer */
#define RESP_NUMBER_MAX 1000000000 /* proto-max-bulk-len is 512 MiB */

struct head {
	u8 bytes[REQUEST_HEAD];
};

enum resp_state {
	RESP_MARK,
	RESP_DIGIT_FIRST,
	RESP_DIGIT,
	RESP_LINE_FEED,
};

struct resp_cursor {
	const struct head *head;
	u64 size; /* the answer */
	u64 number;
	u32 captured;
	u32 at;
	u32 arguments; /* still to come, once known */
	u8 known;
	u8 state;
};

#define RESP_STOP 1
#define RESP_GO_ON 0

/* What is no RESP: nothing, or trouble behind a beginning that certainly was. */
inline_always long resp_refuse(struct resp_cursor *c)
{
	c->size = c->known ? COMMAND_SIZE_UNKNOWN : 0;
	return RESP_STOP;
}

inline_always long resp_number_read(struct resp_cursor *c)
{
	if (!c->known) {
		c->arguments = c->number;
		c->known = 1;
	} else {
		c->at += (u32)c->number + 2;
		c->arguments--;
	}
	c->state = RESP_MARK;
	if (c->arguments)
		return RESP_GO_ON;
	c->size = c->at;
	return RESP_STOP;
}

static long resp_step(u32 index __attribute__((unused)), struct resp_cursor *c)
{
	u32 at = c->at;
	u8 byte;

	if (at >= c->captured)
		return resp_refuse(c);
	opaque(at);
	byte = c->head->bytes[at & (REQUEST_HEAD - 1)];
	c->at++;
	if (c->state == RESP_MARK) {
		if (byte != (c->known ? '$' : '*'))
			return resp_refuse(c);
		c->number = 0;
		c->state = RESP_DIGIT_FIRST;
	} else if (byte >= '0' && byte <= '9' && c->state != RESP_LINE_FEED) {
		c->number = c->number * 10 + (byte - '0');
		c->state = RESP_DIGIT;
		if (c->number >= RESP_NUMBER_MAX)
			return resp_refuse(c);
	} else if (byte == '\r' && c->state == RESP_DIGIT) {
		c->state = RESP_LINE_FEED;
	} else if (byte == '\n' && c->state == RESP_LINE_FEED) {
		return resp_number_read(c);
	} else {
		return resp_refuse(c);
	}
	return RESP_GO_ON;
}

/* Size in bytes of the command at the beginning of an I/O, of which `captured` are at hand; 0 if it is no RESP
 * command; COMMAND_SIZE_UNKNOWN if it is one, but its length is not told by these bytes. A function of its own: the
 * verifier then looks at it once instead of once a path that leads here.
 */
__attribute__((noinline)) u64 resp_command_size(const struct head *head, u32 captured)
{
	struct resp_cursor cursor = {
		.head = head,
		.size = COMMAND_SIZE_UNKNOWN,
		.captured = captured,
	};

	if (!head || captured < 4 || head->bytes[0] != '*')
		return 0;
	bpf_loop(RESP_STEPS, resp_step, &cursor, 0);
	return cursor.size;
}

#endif
