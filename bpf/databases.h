/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Databases that the first bytes of both sides tell for certain. What is not certain stays unknown: of a random exchange none
 * in 10^7 is taken for one. Plain C without kernel calls.
 */
#ifndef WIRESPAN_DATABASES_H
#define WIRESPAN_DATABASES_H

#include "memcached.h"
#include "mysql.h"
#include "postgresql.h"

/* What answers to a request of theirs is looked at only where its first bytes are one's. */
inline_always u8 database_of(const struct exchange *x)
{
	u8 first = x->request_head[0];

	if (first >= 'a' && first <= 't' && is_text_memcached(x))
		return PROTOCOL_MEMCACHED;
	if (first == BINARY_REQUEST && is_binary_memcached(x))
		return PROTOCOL_MEMCACHED;
	if (is_postgresql(x))
		return PROTOCOL_POSTGRESQL;
	return is_mysql(x) ? PROTOCOL_MYSQL : PROTOCOL_UNKNOWN;
}

inline_always u8 status_of_database(const struct exchange *x, u8 protocol)
{
	if (!x->response_captured)
		return STATUS_UNKNOWN;
	if (protocol == PROTOCOL_POSTGRESQL)
		return status_of_postgresql(x);
	if (protocol == PROTOCOL_MYSQL)
		return status_of_mysql(x);
	return protocol == PROTOCOL_MEMCACHED ? status_of_memcached(x) : STATUS_UNKNOWN;
}

/* A request that asks for nothing but the end of its connection: that it is not answered is no failure. */
inline_always int is_farewell(const struct exchange *x)
{
	return x->request_size == x->request_captured &&
	       (is_postgresql_farewell(x) || is_mysql_farewell(x) || is_memcached_farewell(x));
}

#endif
