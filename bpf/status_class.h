/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What became of a request, in few classes. */
#ifndef WIRESPAN_STATUS_CLASS_H
#define WIRESPAN_STATUS_CLASS_H

enum status_class {
	STATUS_UNKNOWN = 0,
	/* The first digit of HTTP's status (RFC 9110 15), and what is like it. */
	STATUS_INFORMATIONAL = 1,
	STATUS_SUCCESS = 2,
	STATUS_REDIRECTION = 3, /* Redis: MOVED, ASK */
	STATUS_CLIENT_ERROR = 4, /* DNS: NXDOMAIN; SQL: the statement */
	STATUS_SERVER_ERROR = 5, /* DNS: any other error; SQL: resources, a timeout, a shutdown, a defect */
	STATUS_ERROR = 6, /* whose fault it is its code does not tell: Redis, the rest of SQL */
};

#endif
