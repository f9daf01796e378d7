/* SPDX-License-Identifier: Apache-2.0 */
/* PostgreSQL, MySQL and memcached, told as the kernel tells them (bpf/databases.h), and the code of an error. */
#ifndef WIRESPAN_TOLD_H
#define WIRESPAN_TOLD_H

#include <string.h>

#include "databases.h"

/* In one number: the protocol, above it from bit 8 on the status class, and from bit 16 on the code: of PostgreSQL the five
 * characters of an SQLSTATE, else a number; 0 if there is none, or it was not captured. Mirrored in
 * receiver/protocols/databases.py.
 */
#define TOLD_STATUS 8
#define TOLD_CODE 16

inline_always u64 code_of_postgresql(const struct exchange *record)
{
	int at = postgresql_error(record);
	u32 begin = at < 0 ? 0 : postgresql_code(record->response_head, record->response_captured, (u32)at);
	u64 code = 0;

	if (begin)
		memcpy(&code, record->response_head + begin, SQLSTATE_SIZE);
	return code;
}

inline_always u64 code_of_database(const struct exchange *record, u8 protocol)
{
	const u8 *h = record->response_head;

	if (protocol == PROTOCOL_POSTGRESQL)
		return code_of_postgresql(record);
	if (protocol == PROTOCOL_MYSQL)
		return h[PACKET_HEADER + 1] | (u64)h[PACKET_HEADER + 2] << 8;
	return h[0] == BINARY_RESPONSE ? big_endian_16(h + BINARY_STATUS) : 0;
}

/* 0: it is of none of them. */
inline_always u64 told_database(const struct exchange *record)
{
	u8 protocol, status;

	if (record->connection.transport != IPPROTO_TCP)
		return 0;
	protocol = database_of(record);
	if (protocol == PROTOCOL_UNKNOWN)
		return 0;
	status = status_of_database(record, protocol);
	if (status < STATUS_CLIENT_ERROR)
		return protocol; /* nothing else is emitted */
	return protocol | (u64)status << TOLD_STATUS | code_of_database(record, protocol) << TOLD_CODE;
}

#endif
