/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* memcached's protocols: text (doc/protocol.txt there, without meta commands), told by a command and an answer that belong
 * together, and binary (doc/protocol-binary.txt), by magic numbers, and by what the header of an answer repeats. Plain C
 * without kernel calls.
 */
#ifndef WIRESPAN_MEMCACHED_H
#define WIRESPAN_MEMCACHED_H

#include "bytes.h"
#include "record.h"
#include "status_class.h"

#define BINARY_REQUEST 0x80
#define BINARY_RESPONSE 0x81
#define BINARY_HEADER 24
#define BINARY_OPCODE_LAST 0x48
/* Offsets in the header. */
#define BINARY_STATUS 6
#define BINARY_BODY 8
#define BINARY_OPAQUE 12

enum binary_status {
	BINARY_SUCCESS = 0,
	BINARY_KEY_NOT_FOUND = 1,
	BINARY_KEY_EXISTS = 2,
	BINARY_NOT_STORED = 5,
	BINARY_SERVER_ERRORS = 0x82, /* from here on, but that a command is unknown is 0x81 */
};

inline_always int is_binary_memcached(const struct exchange *x)
{
	const u8 *h = x->request_head, *answer = x->response_head;

	if (x->request_captured < BINARY_HEADER || x->response_captured < BINARY_HEADER)
		return 0;
	return answer[0] == BINARY_RESPONSE && h[1] == answer[1] && h[1] <= BINARY_OPCODE_LAST && !h[5] && !answer[5] &&
	       little_endian_32(h + BINARY_OPAQUE) == little_endian_32(answer + BINARY_OPAQUE) &&
	       (u64)big_endian_32(h + BINARY_BODY) + BINARY_HEADER <= x->request_size &&
	       (u64)big_endian_32(answer + BINARY_BODY) + BINARY_HEADER <= x->response_size;
}

/* A word as it lies in memory on a little-endian machine. */
#define WORD(a, b, c, d) ((u32)(a) | (u32)(b) << 8 | (u32)(c) << 16 | (u32)(d) << 24)

/* What answers a command. */
enum answer_kind {
	ANSWER_NONE,
	ANSWER_VALUES,
	ANSWER_STORED,
	ANSWER_DELETED,
	ANSWER_TOUCHED,
	ANSWER_NUMBER,
};

inline_always enum answer_kind answer_of_command(const u8 *request)
{
	u32 second = little_endian_32(request + 4);

	switch (little_endian_32(request)) {
	case WORD('g', 'e', 't', ' '):
	case WORD('g', 'a', 't', ' '):
		return ANSWER_VALUES;
	case WORD('g', 'e', 't', 's'):
	case WORD('g', 'a', 't', 's'):
		return request[4] == ' ' ? ANSWER_VALUES : ANSWER_NONE;
	case WORD('s', 'e', 't', ' '):
	case WORD('a', 'd', 'd', ' '):
	case WORD('c', 'a', 's', ' '):
		return ANSWER_STORED;
	case WORD('r', 'e', 'p', 'l'):
		return second == WORD('a', 'c', 'e', ' ') ? ANSWER_STORED : ANSWER_NONE;
	case WORD('a', 'p', 'p', 'e'):
		return second << 8 == WORD(0, 'n', 'd', ' ') ? ANSWER_STORED : ANSWER_NONE;
	case WORD('p', 'r', 'e', 'p'):
		return second == WORD('e', 'n', 'd', ' ') ? ANSWER_STORED : ANSWER_NONE;
	case WORD('d', 'e', 'l', 'e'):
		return second << 8 == WORD(0, 't', 'e', ' ') ? ANSWER_DELETED : ANSWER_NONE;
	case WORD('t', 'o', 'u', 'c'):
		return second << 16 == WORD(0, 0, 'h', ' ') ? ANSWER_TOUCHED : ANSWER_NONE;
	case WORD('i', 'n', 'c', 'r'):
	case WORD('d', 'e', 'c', 'r'):
		return request[4] == ' ' ? ANSWER_NUMBER : ANSWER_NONE;
	default:
		return ANSWER_NONE;
	}
}

/* Whether a command of this kind may be answered by what begins with these two words. */
inline_always int is_answer_of_kind(enum answer_kind kind, u32 first, u32 second)
{
	switch (first) {
	case WORD('E', 'R', 'R', 'O'):
		return second << 8 == WORD(0, 'R', '\r', '\n');
	case WORD('C', 'L', 'I', 'E'):
		return second == WORD('N', 'T', '_', 'E');
	case WORD('S', 'E', 'R', 'V'):
		return second == WORD('E', 'R', '_', 'E');
	case WORD('V', 'A', 'L', 'U'):
		return kind == ANSWER_VALUES && second << 16 == WORD(0, 0, 'E', ' ');
	case WORD('E', 'N', 'D', '\r'):
		return kind == ANSWER_VALUES && second << 24 == WORD(0, 0, 0, '\n');
	case WORD('S', 'T', 'O', 'R'):
		return kind == ANSWER_STORED && second == WORD('E', 'D', '\r', '\n');
	case WORD('E', 'X', 'I', 'S'):
		return kind == ANSWER_STORED && second == WORD('T', 'S', '\r', '\n');
	case WORD('N', 'O', 'T', '_'):
		return second == WORD('F', 'O', 'U', 'N') ||
		       (kind == ANSWER_STORED && second == WORD('S', 'T', 'O', 'R'));
	case WORD('D', 'E', 'L', 'E'):
		return kind == ANSWER_DELETED && second == WORD('T', 'E', 'D', '\r');
	case WORD('T', 'O', 'U', 'C'):
		return kind == ANSWER_TOUCHED && second == WORD('H', 'E', 'D', '\r');
	default:
		return 0;
	}
}

#define NUMBER_LIMIT 22 /* digits of 64 bits, and the end of the line */

inline_always int is_number_line(const u8 *h, u32 captured, u64 size)
{
	opaque(captured); /* what is compared is what is added */
	if (h[0] < '0' || h[0] > '9' || captured < 3 || captured > NUMBER_LIMIT || captured != size)
		return 0;
	return h[captured - 3] >= '0' && h[captured - 3] <= '9' && h[captured - 2] == '\r' && h[captured - 1] == '\n';
}

inline_always int is_text_memcached(const struct exchange *x)
{
	const u8 *answer = x->response_head;
	enum answer_kind kind;

	if (x->request_captured < 8 || x->response_captured < 3)
		return 0;
	kind = answer_of_command(x->request_head);
	if (kind == ANSWER_NONE)
		return 0;
	if (kind == ANSWER_NUMBER && is_number_line(answer, x->response_captured, x->response_size))
		return 1;
	return x->response_captured >= 5 &&
	       is_answer_of_kind(kind, little_endian_32(answer), little_endian_32(answer + 4));
}

/* That there was nothing to get or to change is an answer, and no error. */
inline_always u8 status_of_memcached(const struct exchange *x)
{
	const u8 *h = x->response_head;
	u32 status;

	if (h[0] != BINARY_RESPONSE)
		switch (little_endian_32(h)) {
		case WORD('E', 'R', 'R', 'O'): /* there is no such command */
		case WORD('C', 'L', 'I', 'E'):
			return STATUS_CLIENT_ERROR;
		case WORD('S', 'E', 'R', 'V'):
			return STATUS_SERVER_ERROR;
		default:
			return STATUS_SUCCESS;
		}
	status = big_endian_16(h + BINARY_STATUS);
	if (status == BINARY_SUCCESS || status == BINARY_KEY_NOT_FOUND || status == BINARY_KEY_EXISTS ||
	    status == BINARY_NOT_STORED)
		return STATUS_SUCCESS;
	return status < BINARY_SERVER_ERRORS ? STATUS_CLIENT_ERROR : STATUS_SERVER_ERROR;
}

/* The client closes, and nobody answers. */
inline_always int is_memcached_farewell(const struct exchange *x)
{
	const u8 *h = x->request_head;

	return x->request_captured == 6 && little_endian_32(h) == WORD('q', 'u', 'i', 't') && h[4] == '\r' &&
	       h[5] == '\n';
}

#endif
