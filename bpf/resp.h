/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* How long is the RESP command that these bytes begin? Tells one Redis command from a pipeline without a parser.
 *
 *   *<arguments>\r\n ( $<length>\r\n <length bytes>\r\n ) * arguments
 *
 * Only the headers are looked at.
 */
#ifndef WIRESPAN_RESP_H
#define WIRESPAN_RESP_H

#include "heads.h"

/* Of a command; a longer one changes to segment mode: right, only dearer. */
#define RESP_ARGUMENTS 16
#define RESP_DIGITS 9 /* proto-max-bulk-len is 512 MiB */

enum command_end {
	COMMAND_NONE, /* what begins the I/O is no RESP command */
	COMMAND_END_UNKNOWN, /* these bytes do not tell */
	COMMAND_END_KNOWN,
};

/* Reads "<mark><digits>\r\n" at `at`; returns where it ends, or 0 if something else is there or it is cut. */
inline_always u32 resp_header(const struct head *head, u32 captured, u32 at, u8 mark, u32 *number)
{
	u32 value = 0, first = at + 1;

	if (at >= captured || head->bytes[at & (REQUEST_HEAD - 1)] != mark)
		return 0;
	for (u32 i = 0; i <= RESP_DIGITS; i++) {
		u8 byte;

		at++;
		if (at >= captured)
			return 0;
		byte = head->bytes[at & (REQUEST_HEAD - 1)];
		if (byte < '0' || byte > '9')
			break;
		value = value * 10 + (byte - '0');
	}
	*number = value;
	if (at == first || at + 1 >= captured || head->bytes[at & (REQUEST_HEAD - 1)] != '\r' ||
	    head->bytes[(at + 1) & (REQUEST_HEAD - 1)] != '\n')
		return 0;
	return at + 2;
}

struct command {
	u64 end;
	u32 arguments; /* still to be passed over */
	u32 captured;
};

/* Where the command ends that begins an I/O, of which `captured` bytes are at hand: command->end bytes behind its
 * beginning. A function of its own, and not static: the verifier then looks at it once. It forgets what it knows of a
 * value in memory that is not its own, which spares it one walk for each combination of numbers of digits.
 */
__attribute__((noinline)) int resp_command_end(const struct head *head, u32 captured, struct command *command)
{
	u32 number = 0, next;

	if (!head || !command)
		return COMMAND_NONE;
	next = resp_header(head, captured, 0, '*', &number);
	if (!next || !number)
		return COMMAND_NONE;
	command->end = next;
	command->arguments = number;
	command->captured = captured;
	for (u32 i = 0; i <= RESP_ARGUMENTS; i++) {
		barrier();
		captured = command->captured;
		if (!command->arguments)
			return COMMAND_END_KNOWN;
		if (command->end >= captured)
			return COMMAND_END_UNKNOWN;
		next = resp_header(head, captured, command->end, '$', &number);
		if (!next)
			return COMMAND_END_UNKNOWN;
		command->end = (u64)next + number + 2;
		command->arguments--;
	}
	return COMMAND_END_UNKNOWN;
}

#endif
