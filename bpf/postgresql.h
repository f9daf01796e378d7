/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* PostgreSQL's frontend/backend protocol 3 (documentation, chapter "Frontend/Backend Protocol"), told by the first message of
 * each side: a type, and a length of four bytes, itself included, that fits what was sent.
 *
 *   client  Q (simple query), P B D C E S H (extended query), p (password)
 *   server  T D C I E N Z R S, 1 2 3 n t s
 *
 * Before them the client starts with a message that has no type. Plain C without kernel calls.
 */
#ifndef WIRESPAN_POSTGRESQL_H
#define WIRESPAN_POSTGRESQL_H

#include "bytes.h"
#include "record.h"
#include "sqlstate.h"

#define MESSAGE_HEADER 5
#define READY_FOR_QUERY 6 /* bytes of it, the last message of every answer */
#define PROTOCOL_3 3 /* major version, in a startup message */
#define SSL_REQUEST 80877103
#define GSSENC_REQUEST 80877104

/* Messages of an answer that are passed over in search of its end. */
#define MESSAGES_LIMIT 6

/* Whether these many captured bytes begin a message of a backend, in `size` bytes that were sent. */
inline_always int is_backend_message(const u8 *h, u32 captured, u64 size)
{
	u32 length;

	if (captured < MESSAGE_HEADER + 1)
		return captured == MESSAGE_HEADER && size == MESSAGE_HEADER && big_endian_32(h + 1) == 4;
	length = big_endian_32(h + 1);
	switch (h[0]) {
	case '1': /* ParseComplete */
	case '2': /* BindComplete */
	case '3': /* CloseComplete */
	case 'I': /* EmptyQueryResponse */
	case 'n': /* NoData */
	case 's': /* PortalSuspended */
		return length == 4;
	case 'Z': /* ReadyForQuery */
		return length == 5 && (h[5] == 'I' || h[5] == 'T' || h[5] == 'E');
	case 'E': /* ErrorResponse */
	case 'N': /* NoticeResponse */
		return length > 8 && length < size && h[5] == 'S';
	case 'T': /* RowDescription */
	case 'D': /* DataRow */
	case 't': /* ParameterDescription: a count of two bytes, of 1600 columns or 65535 parameters */
		return length >= 6 && length < size && (h[0] == 't' || h[5] < 7);
	case 'C': /* CommandComplete: INSERT, SELECT, … */
		return length > 6 && length < size && h[5] >= 'A' && h[5] <= 'Z';
	case 'S': /* ParameterStatus */
		return length > 6 && length < size && h[5] >= 'A' && h[5] <= 'z';
	case 'R': /* Authentication */
		return length >= 8 && length < size && !h[5];
	default:
		return 0;
	}
}

/* What a client sends before the first message with a type. */
inline_always int is_postgresql_startup(const struct exchange *x)
{
	const u8 *h = x->request_head, *answer = x->response_head;
	u32 code;

	if (x->request_captured < 8 || big_endian_32(h) != x->request_size)
		return 0;
	code = big_endian_32(h + 4);
	if (code >> 16 == PROTOCOL_3)
		return (answer[0] == 'R' || answer[0] == 'E' || answer[0] == 'N') &&
		       is_backend_message(answer, x->response_captured, x->response_size);
	return x->request_size == 8 && (code == SSL_REQUEST || code == GSSENC_REQUEST) && x->response_size == 1;
}

/* Whether the answer is one to a request that begins with this message. */
inline_always int is_answer_to(u8 request, u8 answer)
{
	switch (request) {
	case 'P':
		return answer == '1' || answer == 'E' || answer == 'N';
	case 'B':
		return answer == '2' || answer == 'E' || answer == 'N';
	case 'C':
		return answer == '3' || answer == 'E';
	case 'D':
		return answer == 'T' || answer == 'n' || answer == 't' || answer == 'E';
	case 'Q':
		return answer != 'R' && (answer < '1' || answer > '3');
	case 'E':
	case 'S':
	case 'H':
		return answer != 'R' && answer != 'T';
	case 'p':
		return answer == 'R' || answer == 'E';
	default:
		return 0;
	}
}

inline_always int is_postgresql(const struct exchange *x)
{
	const u8 *h = x->request_head;
	u32 length;

	if (!h[0])
		return is_postgresql_startup(x);
	if (x->request_captured < MESSAGE_HEADER)
		return 0;
	length = big_endian_32(h + 1);
	if (length < 4 || length >= x->request_size)
		return 0;
	if (!x->response_captured) /* a query ends with a zero */
		return h[0] == 'Q' && length + 1 == x->request_size && length > 5 &&
		       (length >= x->request_captured || !h[length & (REQUEST_HEAD - 1)]);
	/* Behind the first message another one follows only in extended queries. */
	if (length + 1 != x->request_size && (h[0] == 'Q' || h[0] == 'p'))
		return 0;
	return is_answer_to(h[0], x->response_head[0]) &&
	       is_backend_message(x->response_head, x->response_captured, x->response_size);
}

/* Where the SQLSTATE is of the ErrorResponse at `at`; 0 if it was not captured. Its fields are text after a letter: severity
 * (S, translated, of less than 24 bytes), since 9.6 the same in English (V), code (C).
 */
inline_always u32 postgresql_code(const u8 *h, u32 captured, u32 at)
{
	u32 found = at + MESSAGE_HEADER + 1, size, more, last;

	size = bytes_before_zero(little_endian_64(h + found));
	more = bytes_before_zero(little_endian_64(h + found + 8));
	last = bytes_before_zero(little_endian_64(h + found + 16));
	found += size + (size >> 3) * (more + (more >> 3) * last);
	if (found + 1 >= captured || found + 1 >= RESPONSE_HEAD || h[found])
		return 0;
	if (h[found + 1] == 'V')
		found += 7; /* ERROR, FATAL and PANIC have five letters */
	if (found + 2 + SQLSTATE_SIZE >= captured || found + 2 + SQLSTATE_SIZE >= RESPONSE_HEAD || h[found + 1] != 'C')
		return 0;
	return is_sqlstate(h + found + 2) ? found + 2 : 0;
}

/* Where the first ErrorResponse of an answer begins. An answer without one ends with ReadyForQuery, maybe behind what was
 * captured. Neither, if what comes first cannot be passed over.
 */
enum answer_end {
	ANSWER_UNKNOWN = -2,
	ANSWER_WITHOUT_ERROR = -1,
};

inline_always int postgresql_error(const struct exchange *x)
{
	const u8 *h = x->response_head;
	u32 at = 0, length;

	for (u32 i = 0; i < MESSAGES_LIMIT; i++) {
		if (x->response_size == at + READY_FOR_QUERY)
			return ANSWER_WITHOUT_ERROR;
		if (at + MESSAGE_HEADER > x->response_captured || at + MESSAGE_HEADER > RESPONSE_HEAD)
			return ANSWER_UNKNOWN;
		if (h[at] == 'E')
			return at;
		length = big_endian_32(h + at + 1);
		if (length < 4 || length > RESPONSE_HEAD)
			return ANSWER_UNKNOWN;
		at += length + 1;
	}
	return ANSWER_UNKNOWN;
}

inline_always u8 status_of_postgresql(const struct exchange *x)
{
	int at = x->response_size == 1 ? ANSWER_WITHOUT_ERROR : postgresql_error(x);
	u32 code;

	if (at < 0)
		return at == ANSWER_WITHOUT_ERROR ? STATUS_SUCCESS : STATUS_UNKNOWN;
	code = postgresql_code(x->response_head, x->response_captured, at);
	return code ? status_of_sqlstate(x->response_head + code) : STATUS_ERROR;
}

/* Terminate: the client closes, and nobody answers. */
inline_always int is_postgresql_farewell(const struct exchange *x)
{
	return x->request_captured == MESSAGE_HEADER && x->request_head[0] == 'X' &&
	       big_endian_32(x->request_head + 1) == 4;
}

#endif
