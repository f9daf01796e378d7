/* Two processes on one core exchange 128-byte messages over one loopback connection: request, response, request, ...
 * Prints the mean time of a socket call in ns (a round trip is two sends and two receives).
 *
 *   pingpong ROUNDS CPU
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MESSAGE 128
#define CALLS_PER_ROUND 4

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void receive(int fd)
{
	char buffer[MESSAGE];

	for (size_t have = 0; have < sizeof(buffer);) {
		ssize_t n = recv(fd, buffer + have, sizeof(buffer) - have, 0);
		if (n <= 0)
			fail("recv");
		have += n;
	}
}

static void transmit(int fd)
{
	static const char message[MESSAGE] = "\x01pingpong";

	if (send(fd, message, sizeof(message), 0) != sizeof(message))
		fail("send");
}

static void no_delay(int fd)
{
	int on = 1;

	if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)))
		fail("setsockopt");
}

int main(int argc, char **argv)
{
	long rounds = argc > 1 ? atol(argv[1]) : 100000;
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t length = sizeof(address);
	struct timespec begin, end;
	cpu_set_t cpus;
	int listener, fd;
	pid_t server;

	CPU_ZERO(&cpus);
	CPU_SET(argc > 2 ? atoi(argv[2]) : 0, &cpus);
	if (sched_setaffinity(0, sizeof(cpus), &cpus))
		fail("sched_setaffinity");
	listener = socket(AF_INET, SOCK_STREAM, 0);
	if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof(address)) || listen(listener, 1) ||
	    getsockname(listener, (struct sockaddr *)&address, &length))
		fail("listen");
	server = fork();
	if (server < 0)
		fail("fork");
	if (!server) {
		fd = accept(listener, NULL, NULL);
		if (fd < 0)
			fail("accept");
		no_delay(fd);
		for (long i = 0; i < rounds; i++) {
			receive(fd);
			transmit(fd);
		}
		_exit(0);
	}
	fd = socket(AF_INET, SOCK_STREAM, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)))
		fail("connect");
	no_delay(fd);
	clock_gettime(CLOCK_MONOTONIC, &begin);
	for (long i = 0; i < rounds; i++) {
		transmit(fd);
		receive(fd);
	}
	clock_gettime(CLOCK_MONOTONIC, &end);
	waitpid(server, NULL, 0);
	printf("%.1f\n", ((end.tv_sec - begin.tv_sec) * 1e9 + (end.tv_nsec - begin.tv_nsec)) /
				 (double)(rounds * CALLS_PER_ROUND));
	return 0;
}
