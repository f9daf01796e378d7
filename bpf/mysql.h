/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* MySQL's client/server protocol, and MariaDB's (documentation of the former, "Client/Server Protocol"): packets with a length
 * of three bytes, little-endian, and a number that begins at 0 with each command. A command is one packet, which its first
 * byte names; the answer begins with packet 1.
 *
 * The server speaks first, so what a connection begins with is a message; the client's part of the handshake is packet 1 of it.
 * Plain C without kernel calls.
 */
#ifndef WIRESPAN_MYSQL_H
#define WIRESPAN_MYSQL_H

#include "bytes.h"
#include "record.h"
#include "sqlstate.h"

#define PACKET_HEADER 4
#define PACKET_NUMBER(word) ((word) >> 24)
#define PACKET_LENGTH(word) ((word) & 0xffffff)

#define COMMAND_QUIT 1
#define COMMAND_STATISTICS 9 /* answered by plain text */
#define COMMAND_LAST 0x1f
#define COMMAND_STATEMENT_PREPARE 0x16
#define COMMAND_STATEMENT_CLOSE 0x19 /* not answered: another command follows */
#define STATEMENT_CLOSE_SIZE 9

#define PACKET_OK 0
#define PACKET_EOF 0xfe
#define PACKET_ERROR 0xff

#define DEFINITION_BEGIN 0x66656403 /* a length, and "def" */
#define OK_LENGTH 7 /* at least */
#define PREPARE_OK_LENGTH 12
#define ERROR_STATE 7 /* of an error packet: '#' and the SQLSTATE; the code is before it */
#define CAPABILITY_PROTOCOL_41 0x200

/* Whether the definition of a result set's first column is at `at`, behind the number of the columns: it begins with the
 * catalog "def".
 */
inline_always int is_definition(const u8 *h, u32 captured, u32 at)
{
	return captured >= at + 8 && h[at + 3] == 2 && little_endian_32(h + at + 4) == DEFINITION_BEGIN;
}

/* The number of columns may have a byte beside it that says whether definitions follow (MariaDB: behind, MySQL: before). */
inline_always int is_result_set(const u8 *h, u32 captured, u32 length)
{
	if (!h[PACKET_HEADER] || h[PACKET_HEADER] >= 0xfb)
		return 0;
	return (length == 1 && is_definition(h, captured, PACKET_HEADER + 1)) ||
	       (length == 2 && is_definition(h, captured, PACKET_HEADER + 2));
}

inline_always int is_mysql_error(const u8 *h, u32 captured)
{
	return captured >= ERROR_STATE + 1 + SQLSTATE_SIZE && h[PACKET_HEADER] == PACKET_ERROR &&
	       h[ERROR_STATE] == '#' && is_sqlstate(h + ERROR_STATE + 1);
}

inline_always int is_answer_to_command(const struct exchange *x, u8 command)
{
	const u8 *h = x->response_head;
	u32 word = little_endian_32(h), length = PACKET_LENGTH(word);
	int is_all = length + PACKET_HEADER == x->response_size;

	if (x->response_captured <= PACKET_HEADER || PACKET_NUMBER(word) != 1 || !length)
		return 0;
	if (is_all && is_mysql_error(h, x->response_captured))
		return 1;
	if (h[PACKET_HEADER] == PACKET_OK && command == COMMAND_STATEMENT_PREPARE)
		return length == PREPARE_OK_LENGTH;
	if (h[PACKET_HEADER] == PACKET_OK || h[PACKET_HEADER] == PACKET_EOF)
		return is_all && (length >= OK_LENGTH || (length == 5 && h[PACKET_HEADER] == PACKET_EOF));
	if (command == COMMAND_STATISTICS)
		return 0;
	return is_result_set(h, x->response_captured, length);
}

/* The client's packet 1 tells capabilities and, of the newer protocol, 23 zeros. The server answers by packet 2. */
inline_always int is_mysql_handshake(const struct exchange *x)
{
	const u8 *h = x->request_head, *answer = x->response_head;
	u32 word = little_endian_32(answer);

	if (x->request_captured < 32 || x->response_captured <= PACKET_HEADER || PACKET_NUMBER(word) != 2 ||
	    PACKET_LENGTH(word) + PACKET_HEADER > x->response_size)
		return 0;
	if (!(little_endian_32(h + 4) & CAPABILITY_PROTOCOL_41) || little_endian_32(h + 13) ||
	    little_endian_32(h + 17) || little_endian_32(h + 21))
		return 0;
	return answer[4] == PACKET_OK || answer[4] == 1 /* more data */ ||
	       answer[4] == PACKET_EOF /* another method */ || is_mysql_error(answer, x->response_captured);
}

inline_always int is_mysql_command(u32 word, u64 size, u8 command)
{
	return word + PACKET_HEADER == size && command && command <= COMMAND_LAST;
}

inline_always int is_mysql(const struct exchange *x)
{
	const u8 *h = x->request_head;
	u32 word = little_endian_32(h);

	if (x->request_captured <= PACKET_HEADER)
		return 0;
	if (is_mysql_command(word, x->request_size, h[4]))
		return x->response_captured && is_answer_to_command(x, h[4]);
	if (PACKET_NUMBER(word) == 1)
		return PACKET_LENGTH(word) + PACKET_HEADER == x->request_size && is_mysql_handshake(x);
	return word == STATEMENT_CLOSE_SIZE - PACKET_HEADER && h[4] == COMMAND_STATEMENT_CLOSE &&
	       x->request_captured > STATEMENT_CLOSE_SIZE + PACKET_HEADER &&
	       is_mysql_command(little_endian_32(h + STATEMENT_CLOSE_SIZE), x->request_size - STATEMENT_CLOSE_SIZE,
				h[STATEMENT_CLOSE_SIZE + PACKET_HEADER]) &&
	       is_answer_to_command(x, h[STATEMENT_CLOSE_SIZE + PACKET_HEADER]);
}

/* An error may come behind the first rows, where nobody looks. */
inline_always u8 status_of_mysql(const struct exchange *x)
{
	const u8 *h = x->response_head;

	if (is_mysql_error(h, x->response_captured))
		return status_of_sqlstate(h + ERROR_STATE + 1);
	return h[PACKET_HEADER] == PACKET_OK ? STATUS_SUCCESS : STATUS_UNKNOWN;
}

/* COM_QUIT: the client closes, and nobody answers. */
inline_always int is_mysql_farewell(const struct exchange *x)
{
	return x->request_captured == PACKET_HEADER + 1 && little_endian_32(x->request_head) == 1 &&
	       x->request_head[PACKET_HEADER] == COMMAND_QUIT;
}

#endif
