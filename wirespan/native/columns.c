/* SPDX-License-Identifier: Apache-2.0 */
/* What a record says in numbers, as the columns of a span batch: one pass over the records, whose fields lie hundreds of
 * bytes apart, so that reading them column by column would fetch each line of memory anew.
 */
#include <math.h>
#include <string.h>

#include "exchanges.h"
#include "siphash.h"

/* A division gives the double nearest to the decimal, a product with 1e-9 not always. */
#define NANOSECONDS 1e9

#define REMARKABLE (FLAG_SEND_START_UNKNOWN | FLAG_PIPELINED | FLAG_RESENT | FLAG_MESSAGE)

enum number {
	NUMBER_SERVER_PORT,
	NUMBER_CLIENT_PORT,
	NUMBER_PEER_PORT,
	NUMBER_PID,
	NUMBER_REQUEST_SIZE,
	NUMBER_RESPONSE_SIZE,
};

enum part {
	PART_QUEUE,
	PART_REQUEST,
	PART_PROCESSING,
	PART_RESPONSE,
};

/* Where the columns go, n values each; numbers and parts are as many columns as their enums say, one behind the other.
 * The enums are those of receiver/exchanges.py, this struct too.
 */
struct columns {
	u8 *server_side; /* whether the record was made at the server's end */
	u8 *peer_observed;
	u64 *began;
	u64 *duration;
	u16 *remarks; /* the outcome in the lower byte, flags in the upper one */
	s64 *numbers;
	double *parts; /* seconds, NaN where an end of it is not known */
};

u64 records_size(void)
{
	return sizeof(struct records);
}

u64 columns_size(void)
{
	return sizeof(struct columns);
}

/* Never negative, which is counted: a response may arrive before the hook of its request's send ran. */
static double seconds(u64 since, u64 until, int known, u64 *clamped)
{
	s64 span = (s64)(until - since);

	if (!known)
		return NAN;
	if (span < 0) {
		*clamped += 1;
		return 0;
	}
	return (double)span / NANOSECONDS;
}

/* Whether this end received what begins the record: a server its request, a client a message. */
static int is_receiver(const struct exchange *record)
{
	return (record->connection.role == ROLE_SERVER) == !(record->flags & FLAG_MESSAGE);
}

/* Whether a message came from this machine, as far as its addresses tell. */
static int is_from_here(const struct exchange *record)
{
	const struct connection_info *connection = &record->connection;
	u64 remote[2];

	if (likely(!(record->flags & FLAG_MESSAGE)))
		return 0;
	memcpy(remote, connection->remote_address, sizeof(remote));
	return address_is_loopback(remote) || !memcmp(remote, connection->local_address, sizeof(remote));
}

static void write_numbers(const struct exchange *record, int is_server, s64 *at, u64 count)
{
	const struct connection_info *connection = &record->connection;

	at[NUMBER_SERVER_PORT * count] = is_server ? connection->local_port : connection->remote_port;
	at[NUMBER_CLIENT_PORT * count] = is_server ? connection->remote_port : connection->local_port;
	at[NUMBER_PEER_PORT * count] = connection->remote_port;
	at[NUMBER_PID * count] = record->process.tgid;
	at[NUMBER_REQUEST_SIZE * count] = record->flags & FLAG_MESSAGE ? -1 : (s64)record->request_size;
	at[NUMBER_RESPONSE_SIZE * count] = (s64)record->response_size;
}

static void write_parts(const struct exchange *record, int is_server, double *at, u64 count, u64 *clamped)
{
	u64 arrived = record->arrived, start = record->request_start, answered = record->response_start;
	u64 handed_over = is_server ? answered : arrived;
	int is_exchange = !(record->flags & FLAG_MESSAGE);

	at[PART_QUEUE * count] = seconds(arrived, start, is_receiver(record) && arrived, clamped);
	at[PART_REQUEST * count] = seconds(start, record->request_end, start && record->request_size, clamped);
	at[PART_PROCESSING * count] =
		seconds(record->request_end, handed_over, is_exchange && answered && handed_over, clamped);
	at[PART_RESPONSE * count] = seconds(answered, record->response_end, answered != 0, clamped);
}

/* Fills the columns; returns how many parts came out negative. */
u64 exchange_columns(const struct records *records, const struct columns *columns)
{
	u64 clamped = 0;

	for (u64 row = 0; row < records->count; row++) {
		const struct exchange *record = record_at(records, row);
		int is_server = record->connection.role == ROLE_SERVER;
		u64 began = is_receiver(record) && record->arrived ? record->arrived : record->request_start;

		columns->server_side[row] = is_server;
		columns->peer_observed[row] = (record->flags & FLAG_PEER_OBSERVED) != 0 || is_from_here(record);
		columns->began[row] = began;
		columns->duration[row] = record->response_end > began ? record->response_end - began : 0;
		columns->remarks[row] = (u16)(record->outcome | (record->flags & REMARKABLE) << 8);
		write_numbers(record, is_server, columns->numbers + row, records->count);
		write_parts(record, is_server, columns->parts + row, records->count, &clamped);
	}
	return clamped;
}

#define AT(field) __builtin_offsetof(struct exchange, field)

/* Where C expects what it reads of a record, and the record's size: the records' dtype, which comes from the BTF of the
 * programs, must agree.
 */
void record_layout(u64 *offsets)
{
	const u64 found[] = {
		sizeof(struct exchange),
		AT(connection.cookie),
		AT(connection.local_address),
		AT(connection.remote_address),
		AT(connection.local_port),
		AT(connection.remote_port),
		AT(connection.sequence),
		AT(connection.netns),
		AT(connection.role),
		AT(connection.flags),
		AT(connection.transport),
		AT(process.start_time),
		AT(process.tgid),
		AT(process.exec_id),
		AT(process.comm),
		AT(position),
		AT(arrived),
		AT(request_start),
		AT(request_end),
		AT(response_start),
		AT(response_end),
		AT(request_size),
		AT(response_size),
		AT(request_captured),
		AT(response_captured),
		AT(outcome),
		AT(flags),
		AT(protocol),
		AT(response_head),
		AT(request_head),
	};

	for (u64 i = 0; i < sizeof(found) / sizeof(found[0]); i++)
		offsets[i] = found[i];
}
