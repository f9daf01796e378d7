/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The datagram of the call that just returned, in the memory of its process: as user_payload.h, and where it was sent to.
 * In the calls of many messages the n-th hook is about the n-th message.
 */
#ifndef WIRESPAN_USER_DATAGRAM_H
#define WIRESPAN_USER_DATAGRAM_H

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "datagram.h"
#include "kernel.h"
#include "user_payload.h"

enum syscall_of_many {
	SYSCALL_RECVMMSG = 299,
	SYSCALL_SENDMMSG = 307,
};

#define MESSAGES_MAX 1024 /* UIO_MAXIOV */

/* struct mmsghdr: part of the system call ABI */
struct user_messages {
	struct user_message message;
	u64 rest[4];
};

_Static_assert(sizeof(struct user_messages) == 64, "as in the ABI");

/* Where a call of many messages is. */
struct many {
	u64 messages; /* address of the vector; 0: none under way */
	u64 task;
	u32 count; /* messages in it */
	u32 done;
};

struct user_datagram {
	struct user_buffer buffer;
	u64 name; /* address of its sockaddr; 0: none */
};

/* Which message of the call this hook is about. A call that ended early has had a hook that said so, or goes on with
 * another vector.
 */
inline_always u32 message_of(struct many *many, u64 messages, u64 count)
{
	u64 task = (u64)bpf_get_current_task_btf();

	if (count > MESSAGES_MAX)
		count = MESSAGES_MAX;
	if (many->messages != messages || many->task != task || many->count != count || many->done >= count)
		many->done = 0;
	many->messages = messages;
	many->task = task;
	many->count = count;
	return many->done++;
}

/* A function of its own, and not static: the verifier then looks at it once. */
__attribute__((noinline)) int find_user_datagram(u64 file, struct many *many, struct user_datagram *found)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(task);
	u64 second = regs->si, third = regs->dx;
	struct user_message message;

	if (!many || !found)
		return 0;
	opaque(second);
	opaque(third);
	if (regs->ax != (unsigned long)-ENOSYS || task->thread_info.status & TS_COMPAT || !files_of(task) ||
	    !is_call_on_socket(task, regs, file))
		return 0;
	found->buffer.address = second;
	found->buffer.iovec_count = 0;
	found->name = 0;
	switch (regs->orig_ax) {
	case SYSCALL_SENDTO:
		found->name = regs->r8;
		return 1;
	case SYSCALL_READ:
	case SYSCALL_WRITE:
	case SYSCALL_RECVFROM:
		return 1;
	case SYSCALL_READV:
	case SYSCALL_WRITEV:
		found->buffer.iovec_count = third;
		return 1;
	case SYSCALL_SENDMSG:
	case SYSCALL_RECVMSG:
		break;
	case SYSCALL_SENDMMSG:
	case SYSCALL_RECVMMSG:
		second += message_of(many, second, third) * sizeof(struct user_messages);
		break;
	default:
		return 0;
	}
	if (bpf_probe_read_user(&message, sizeof(message), (void *)second))
		return 0;
	found->name = message.name;
	found->buffer.address = message.iovecs;
	found->buffer.iovec_count = message.iovec_count;
	return 1;
}

struct datagram_space {
	u8 bytes[2 * DATAGRAM_HEAD];
};

/* The first DATAGRAM_HEAD of its `size` bytes. A function of its own, and not static: the verifier then looks at it once. */
__attribute__((noinline)) u32 copy_user_datagram(const struct user_buffer *buffer, struct datagram_space *to, u32 size)
{
	return buffer && to ? gather(buffer, to->bytes, DATAGRAM_HEAD, size) : 0;
}

/* struct sockaddr_in, struct sockaddr_in6 */
struct user_name {
	u16 family;
	u16 port;
	u32 v4;
	u32 v6[4];
};

/* Where a datagram was sent to. Returns 0 if that cannot be read. */
inline_always int read_user_name(u64 address, struct datagram *to)
{
	struct user_name name = {};

	if (!address || bpf_probe_read_user(&name, 8, (void *)address))
		return 0;
	if (name.family == AF_INET) {
		mapped_address((u8 *)to->peer, name.v4);
	} else if (name.family == AF_INET6) {
		if (bpf_probe_read_user(name.v6, sizeof(name.v6), (void *)(address + 8)))
			return 0;
		__builtin_memcpy(to->peer, name.v6, sizeof(name.v6));
	} else {
		return 0;
	}
	to->peer_port = __builtin_bswap16(name.port);
	return 1;
}

#endif
