/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Reads a pipe while io_uring receives for it; PORT, the pipe on stdin.
 *
 * Of one connection it reads 4 bytes, then submits an IORING_OP_RECV for the rest of the request and goes to read the
 * pipe twice into the same buffer: the second read() is what it sits in, that buffer in its registers and full of what
 * the first one brought, when the receive completes. Says so by a line each, and answers the request at the end.
 */
#include <arpa/inet.h>
#include <linux/io_uring.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ANSWER "HTTP/1.1 204 No Content\r\n\r\n"

struct ring {
	int fd;
	unsigned int *sq_tail, *sq_array, *cq_head, *cq_tail;
	struct io_uring_sqe *sqes;
	struct io_uring_cqe *cqes;
};

static void check(int ok, const char *what)
{
	if (!ok) {
		perror(what);
		exit(1);
	}
}

static void *map(int fd, size_t size, off_t at)
{
	void *found = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, at);

	check(found != MAP_FAILED, "mmap");
	return found;
}

static struct ring set_up(void)
{
	struct io_uring_params p = {0};
	struct ring ring = {.fd = syscall(__NR_io_uring_setup, 1, &p)};
	char *sq, *cq;

	check(ring.fd >= 0, "io_uring_setup");
	sq = map(ring.fd, p.sq_off.array + p.sq_entries * sizeof(unsigned int), IORING_OFF_SQ_RING);
	cq = map(ring.fd, p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe), IORING_OFF_CQ_RING);
	ring.sqes = map(ring.fd, p.sq_entries * sizeof(struct io_uring_sqe), IORING_OFF_SQES);
	ring.sq_tail = (unsigned int *)(sq + p.sq_off.tail);
	ring.sq_array = (unsigned int *)(sq + p.sq_off.array);
	ring.cq_head = (unsigned int *)(cq + p.cq_off.head);
	ring.cq_tail = (unsigned int *)(cq + p.cq_off.tail);
	ring.cqes = (struct io_uring_cqe *)(cq + p.cq_off.cqes);
	return ring;
}

static void submit_receive(struct ring *ring, int connection, void *to, unsigned int size)
{
	ring->sqes[0] = (struct io_uring_sqe){
		.opcode = IORING_OP_RECV, .fd = connection, .addr = (unsigned long)to, .len = size};
	ring->sq_array[0] = 0;
	__atomic_store_n(ring->sq_tail, *ring->sq_tail + 1, __ATOMIC_RELEASE);
	check(syscall(__NR_io_uring_enter, ring->fd, 1, 0, 0, NULL, 0) == 1, "io_uring_enter");
}

static int accept_one(int port)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	int connection;

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	check(!bind(listener, (struct sockaddr *)&address, sizeof(address)), "bind");
	check(!listen(listener, 1), "listen");
	puts("listening");
	connection = accept(listener, NULL, NULL);
	check(connection >= 0, "accept");
	return connection;
}

int main(int argc, char **argv)
{
	char request[256], piped[256];
	struct ring ring = set_up();
	int connection;

	check(argc == 2, "usage: PORT");
	setvbuf(stdout, NULL, _IOLBF, 0);
	connection = accept_one(atoi(argv[1]));
	check(recv(connection, request, 4, MSG_WAITALL) == 4, "recv");
	submit_receive(&ring, connection, request + 4, sizeof(request) - 4);
	check(read(STDIN_FILENO, piped, sizeof(piped)) > 0, "read");
	check(*ring.cq_head == __atomic_load_n(ring.cq_tail, __ATOMIC_ACQUIRE), "received too early");
	puts("reading");
	check(read(STDIN_FILENO, piped, sizeof(piped)) > 0, "read");
	check(*ring.cq_head != __atomic_load_n(ring.cq_tail, __ATOMIC_ACQUIRE), "not received in read()");
	printf("received %d\n", ring.cqes[0].res);
	check(send(connection, ANSWER, strlen(ANSWER), 0) == (ssize_t)strlen(ANSWER), "send");
	read(STDIN_FILENO, piped, sizeof(piped)); /* up to its end */
	return 0;
}
