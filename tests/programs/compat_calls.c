/* Serves or asks by the system calls of 32-bit programs alone (int $0x80), in every way that they can move bytes.
 *
 * It needs no C library, so that it is compiled for 32 bits (-m32) where there is none for them, and for 64 bits too,
 * whose programs may make those calls. Everything that a call points to is static: addresses have 32 bits.
 *
 * -DPORT=n, -DEXCHANGES=n, -DSERVE=0 or 1, -DDATAGRAMS=0 or 1. A server says "listening" and answers one connection, or
 * EXCHANGES datagrams.
 */
typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned char u8;

#ifdef __x86_64__
#define CLOBBERED "memory", "r8", "r9", "r10", "r11"
#else
#define CLOBBERED "memory"
#endif

/* arch/x86/entry/syscalls/syscall_32.tbl */
enum { EXIT = 1, READ = 3, WRITE = 4, SOCKETCALL = 102, READV = 145, WRITEV = 146, SENDMSG = 370, RECVMSG = 372 };
/* include/uapi/linux/net.h: of socketcall() */
enum { SOCKET = 1, BIND, CONNECT, LISTEN, ACCEPT, SEND = 9, RECV, SENDTO, RECVFROM };
enum { STREAM = 1, DATAGRAM = 2, FAMILY = 2, WAYS = 4 };

struct vector {
	u32 base, length;
};

struct message {
	u32 name, name_length, vectors, count, control, control_length, flags;
};

struct address {
	u16 family;
	u8 port[2], host[4], unused[8];
};

static struct address there = {FAMILY, {PORT >> 8, PORT & 255}, {127, 0, 0, 1}, {0}};
static struct address peer;
static u32 peer_length = sizeof(peer);
static u32 words[6];
static struct vector vectors[2];
static struct message message;
static u8 received[1024];
static const u8 request[] = "GET /compat HTTP/1.1\r\nHost: test\r\n\r\n";
static const u8 response[] = "HTTP/1.1 204 No Content\r\n\r\n";
static const u8 listening[] = "listening\n";

static u32 address_of(const volatile void *pointer)
{
	return (u32)(unsigned long)pointer;
}

static int call(u32 number, u32 first, u32 second, u32 third)
{
	int result;

	__asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(first), "c"(second), "d"(third) : CLOBBERED);
	return result;
}

static void finish(u32 status)
{
	for (;;)
		call(EXIT, status, 0, 0);
}

static int check(int result)
{
	if (result < 0)
		finish((u32)-result);
	return result;
}

static int socket_call(u32 which, u32 first, u32 second, u32 third, u32 fifth, u32 sixth)
{
	u32 given[] = {first, second, third, 0, fifth, sixth};

	for (u32 i = 0; i < 6; i++)
		((volatile u32 *)words)[i] = given[i];
	return check(call(SOCKETCALL, which, address_of(words), 0));
}

/* In two parts, the first of 5 bytes. */
static u32 scattered(u32 base, u32 length)
{
	vectors[0] = (struct vector){base, 5};
	vectors[1] = (struct vector){base + 5, length - 5};
	return address_of(vectors);
}

static u32 as_message(u32 base, u32 length, u32 name)
{
	message = (struct message){name, name ? sizeof(peer) : 0, scattered(base, length), 2, 0, 0, 0};
	return address_of(&message);
}

/* named: from or to `peer`. */
static int take(u32 fd, u32 way, int named)
{
	u32 to = address_of(received), name = named ? address_of(&peer) : 0;

	if (way == 0 || (named && way != 3))
		return socket_call(RECVFROM, fd, to, sizeof(received), name, name ? address_of(&peer_length) : 0);
	if (way == 1)
		return check(call(READ, fd, to, sizeof(received)));
	if (way == 2)
		return check(call(READV, fd, scattered(to, sizeof(received)), 2));
	return check(call(RECVMSG, fd, as_message(to, sizeof(received), name), 0));
}

static void give(u32 fd, u32 way, const u8 *bytes, u32 length, int named)
{
	u32 from = address_of(bytes), name = named ? address_of(&peer) : 0;

	if (way == 0 || (named && way != 3))
		socket_call(SENDTO, fd, from, length, name, name ? sizeof(peer) : 0);
	else if (way == 1)
		check(call(WRITE, fd, from, length));
	else if (way == 2)
		check(call(WRITEV, fd, scattered(from, length), 2));
	else
		check(call(SENDMSG, fd, as_message(from, length, name), 0));
}

static void serve(u32 fd, int named)
{
	for (u32 i = 0; !named || i < EXCHANGES; i++) {
		if (!take(fd, i % WAYS, named))
			return;
		give(fd, i % WAYS, response, sizeof(response) - 1, named);
	}
}

static void ask(u32 fd)
{
	for (u32 i = 0; i < EXCHANGES; i++) {
		give(fd, i % WAYS, request, sizeof(request) - 1, 0);
		if (take(fd, i % WAYS, 0) != sizeof(response) - 1)
			finish(99);
	}
}

void _start(void)
{
	u32 fd = socket_call(SOCKET, FAMILY, DATAGRAMS ? DATAGRAM : STREAM, 0, 0, 0);

	if (SERVE) {
		socket_call(BIND, fd, address_of(&there), sizeof(there), 0, 0);
		if (!DATAGRAMS)
			socket_call(LISTEN, fd, 8, 0, 0, 0);
		call(WRITE, 1, address_of(listening), sizeof(listening) - 1);
		serve(DATAGRAMS ? fd : (u32)socket_call(ACCEPT, fd, 0, 0, 0, 0), DATAGRAMS);
	} else {
		socket_call(CONNECT, fd, address_of(&there), sizeof(there), 0, 0);
		ask(fd);
	}
	finish(0);
}
