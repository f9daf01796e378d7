/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* SQLSTATE, five characters of which the first two are a class (ISO 9075-2 24.1; PostgreSQL's Appendix A; MySQL's error
 * reference): whose fault an error is. Plain C without kernel calls.
 */
#ifndef WIRESPAN_SQLSTATE_H
#define WIRESPAN_SQLSTATE_H

#include "status_class.h"
#include "types.h"

#define SQLSTATE_SIZE 5
#define SQLSTATE_CLASS(first, second) ((u32)(first) << 8 | (u32)(second))

/* 1 if the byte is one of `count` from `first` on, else 0. Without a branch, as what follows: the verifier would go each way. */
inline_always u32 is_among(u8 byte, u8 first, u32 count)
{
	u32 beyond = (u32)(u8)(byte - first) - count;

	opaque(beyond);
	return beyond >> 31;
}

inline_always int is_sqlstate(const u8 *h)
{
	u32 are = 1;

	for (u32 i = 0; i < SQLSTATE_SIZE; i++)
		are &= is_among(h[i], '0', 10) | is_among(h[i], 'A', 26);
	return are;
}

/* Neither: who lost a race (40, serialization failure), what a function raised (P0), MySQL's HY000 for all the rest. */
inline_always u8 status_of_sqlstate(const u8 *h)
{
	switch (SQLSTATE_CLASS(h[0], h[1])) {
	case SQLSTATE_CLASS('5', '3'): /* insufficient resources */
	case SQLSTATE_CLASS('5', '7'): /* operator intervention: a timeout, a shutdown */
	case SQLSTATE_CLASS('5', '8'): /* system error */
	case SQLSTATE_CLASS('X', 'X'): /* internal error */
		return STATUS_SERVER_ERROR;
	case SQLSTATE_CLASS('0', 'A'): /* feature not supported */
	case SQLSTATE_CLASS('2', '1'): /* cardinality violation */
	case SQLSTATE_CLASS('2', '2'): /* data exception */
	case SQLSTATE_CLASS('2', '3'): /* integrity constraint violation */
	case SQLSTATE_CLASS('2', '5'): /* invalid transaction state */
	case SQLSTATE_CLASS('2', '6'): /* invalid SQL statement name */
	case SQLSTATE_CLASS('2', '8'): /* invalid authorization */
	case SQLSTATE_CLASS('3', '4'): /* invalid cursor name */
	case SQLSTATE_CLASS('3', 'D'): /* invalid catalog name */
	case SQLSTATE_CLASS('3', 'F'): /* invalid schema name */
	case SQLSTATE_CLASS('4', '2'): /* syntax error, or access not allowed */
	case SQLSTATE_CLASS('4', '4'): /* WITH CHECK OPTION violation */
		return STATUS_CLIENT_ERROR;
	default:
		return STATUS_ERROR;
	}
}

#endif
