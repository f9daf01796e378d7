/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The bytes of the I/O that just returned, found through the registers of its system call (x86-64).
 *
 * The registers speak of this I/O only if the task is inside one of the listed calls, the file descriptor in them is
 * this very socket, and the call has not yet got its result (`ax` still -ENOSYS): an io_uring request that completes
 * while its task sits in read(pipe) would otherwise show the pipe's bytes. Everything else (sendfile, splice,
 * io_uring, kernel threads, 32-bit tasks) has no payload here: it is timed and sized all the same.
 */
#ifndef WIRESPAN_PAYLOAD_H
#define WIRESPAN_PAYLOAD_H

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "counting.h"
#include "kernel.h"
#include "record.h"

extern void *bpf_rdonly_cast(void *object, u32 btf_id) __ksym;

#define TS_COMPAT 2 /* arch/x86/include/asm/thread_info.h */

enum syscall {
	SYSCALL_READ = 0,
	SYSCALL_WRITE = 1,
	SYSCALL_READV = 19,
	SYSCALL_WRITEV = 20,
	SYSCALL_SENDTO = 44,
	SYSCALL_RECVFROM = 45,
	SYSCALL_SENDMSG = 46,
	SYSCALL_RECVMSG = 47,
};

#define IOVECS 8 /* of an I/O that are looked at; bytes beyond are as if not captured */

struct user_iovec {
	u64 base;
	u64 length;
};

/* struct user_msghdr, include/linux/socket.h: part of the system call ABI */
struct user_message {
	u64 name;
	u64 name_length;
	u64 iovecs;
	u64 iovec_count;
};

/* Where the bytes are: one buffer, or `iovec_count` of them at `address`. */
struct user_buffer {
	u64 address;
	u32 iovec_count; /* 0: address is the buffer itself */
};

/* fdt->fd is a pointer to pointers, which BTF-typed loads cannot follow: the entry is looked at as if it were the first
 * member of a struct that begins with a pointer, which saves the call of bpf_probe_read_kernel() (20 ns).
 */
inline_always int is_call_on_socket(struct task_struct *task, struct pt_regs *regs, struct sock *sk)
{
	struct fdtable *fdt = task->files->fdt;
	u64 fd = (u32)regs->di;
	struct files_struct *entry;

	if (fd >= fdt->max_fds)
		return 0;
	entry = bpf_rdonly_cast((void *)((u64)(fdt->fd + fd) - bpf_core_field_offset(struct files_struct, fdt)),
				bpf_core_type_id_kernel(struct files_struct));
	return entry->fdt && (u64)entry->fdt == (u64)sk->sk_socket->file;
}

inline_always int find_user_buffer(struct task_struct *task, struct sock *sk, struct user_buffer *buffer)
{
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(task);
	u64 second = regs->si, third = regs->dx;
	struct user_message message;

	opaque(second); /* one load each, whatever the call */
	opaque(third);
	if (regs->ax != (unsigned long)-ENOSYS || task->thread_info.status & TS_COMPAT || !task->files)
		return 0;
	buffer->address = second;
	buffer->iovec_count = 0;
	switch (regs->orig_ax) {
	case SYSCALL_READ:
	case SYSCALL_WRITE:
	case SYSCALL_SENDTO:
	case SYSCALL_RECVFROM:
		break;
	case SYSCALL_READV:
	case SYSCALL_WRITEV:
		buffer->iovec_count = third;
		break;
	case SYSCALL_SENDMSG:
	case SYSCALL_RECVMSG:
		if (bpf_probe_read_user(&message, sizeof(message), (void *)second))
			return 0;
		buffer->address = message.iovecs;
		buffer->iovec_count = message.iovec_count;
		break;
	default:
		return 0;
	}
	return is_call_on_socket(task, regs, sk);
}

/* Copies up to `room` of the `size` bytes of the I/O to `to`, which has space for twice as many so that the verifier
 * sees every write in bounds. Returns the bytes copied.
 */
inline_always u32 gather(const struct user_buffer *buffer, u8 *to, u32 room, u64 size)
{
	struct user_iovec vec;
	u32 have = 0;

	if (size > room)
		size = room;
	if (!buffer->iovec_count) {
		have = size;
		if (have > room || bpf_probe_read_user(to, have, (void *)buffer->address)) {
			count(COUNT_PAYLOAD_FAULT);
			return 0;
		}
		return have;
	}
	for (u32 i = 0; i < IOVECS; i++) {
		u32 part;

		if (i >= buffer->iovec_count || have >= size)
			break;
		if (bpf_probe_read_user(&vec, sizeof(vec), (void *)(buffer->address + i * sizeof(vec))))
			break;
		part = vec.length < size - have ? vec.length : size - have;
		if (part > room || have > room)
			break;
		if (bpf_probe_read_user(to + have, part, (void *)vec.base)) {
			count(COUNT_PAYLOAD_FAULT);
			break;
		}
		have += part;
	}
	return have;
}

/* Functions of their own, so that the verifier looks at each once. */
struct head_space {
	u8 bytes[2 * REQUEST_HEAD];
};

#define PROBE 64 /* bytes read of any request; more only of what looks like text or RESP */

inline_always int is_worth_more(u8 first)
{
	return first == '*' || (first >= 'A' && first <= 'Z');
}

/* The head of an I/O: up to `room` <= REQUEST_HEAD of its `size` bytes. */
__attribute__((noinline)) u32 read_head(const struct user_buffer *buffer, struct head_space *to, u64 size, u32 room)
{
	u32 have;

	if (!buffer || !to || room > REQUEST_HEAD)
		return 0;
	have = gather(buffer, to->bytes, PROBE, size < room ? size : room);
	if (have < PROBE || have >= size || room <= PROBE || !is_worth_more(to->bytes[0]))
		return have;
	return gather(buffer, to->bytes, REQUEST_HEAD, size < room ? size : room);
}

struct segment_space {
	u8 bytes[2 * SEGMENT_PAYLOAD];
};

__attribute__((noinline)) u32 read_segment(const struct user_buffer *buffer, struct segment_space *to, u64 size)
{
	if (!buffer || !to)
		return 0;
	return gather(buffer, to->bytes, SEGMENT_PAYLOAD, size);
}

#endif
