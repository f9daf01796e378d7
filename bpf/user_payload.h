/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The bytes of the I/O that just returned, found through the registers of its system call (x86-64).
 *
 * The registers speak of this I/O only if the task is inside one of the listed calls, the file descriptor in them is
 * this very socket, and the call has not yet got its result (`ax` still -ENOSYS): an io_uring request that completes
 * while its task sits in read(pipe) would otherwise show the pipe's bytes. Everything else (sendfile, splice,
 * io_uring, kernel threads, 32-bit tasks) has no payload here: it is timed and sized all the same.
 */
#ifndef WIRESPAN_USER_PAYLOAD_H
#define WIRESPAN_USER_PAYLOAD_H

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "counting.h"
#include "heads.h"
#include "kernel.h"

/* Set before load; 0: no byte of what travels is read, neither here nor in packets. */
const volatile u8 read_payload = 1;

/* Set by user space at any time: the same from now on, but peers of datagrams are still looked up. */
u8 payload_off = 0;

inline_always int reads_payload(void)
{
	return read_payload && likely(!payload_off);
}

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
inline_always int is_call_on_socket(struct task_struct *task, struct pt_regs *regs, u64 file)
{
	struct fdtable *fdt = files_of(task)->fdt;
	u64 fd = (u32)regs->di;
	struct files_struct *entry;

	if (fd >= fdt->max_fds)
		return 0;
	entry = kernel_cast(files_struct, (u64)(fdt->fd + fd) - bpf_core_field_offset(struct files_struct, fdt));
	return file && (u64)entry->fdt == file;
}

inline_always u64 file_of(const struct sock *sk)
{
	return kernel_address(kernel_address(sk, sock, sk_socket), socket, file);
}

/* file: the socket's, see file_of(). */
inline_always int find_user_buffer(u64 file, struct user_buffer *buffer)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(task);
	u64 second = regs->si, third = regs->dx;
	struct user_message message;

	opaque(second); /* one load each, whatever the call */
	opaque(third);
	if (regs->ax != (unsigned long)-ENOSYS || task->thread_info.status & TS_COMPAT || !files_of(task))
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
	return is_call_on_socket(task, regs, file);
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
		opaque(have);
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
		opaque(part); /* else the compiler leaves out what it knows, and the verifier does not */
		opaque(have);
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

/* Functions of their own, and not static: the verifier then looks at each once. */
struct head_space {
	u8 bytes[2 * REQUEST_HEAD];
};

/* The head of an I/O on the socket of this file, see file_of(): up to `room` <= REQUEST_HEAD of its `size` bytes.
 * `known_worth`: the I/O goes on with a head whose beginning is worth more.
 */
__attribute__((noinline)) u32 copy_user_head(u64 file, struct head_space *to, u64 size, u32 room, u32 known_worth)
{
	struct user_buffer buffer = {};
	u32 have;

	if (!to || room > REQUEST_HEAD)
		return 0;
	if (!find_user_buffer(file, &buffer)) {
		count(COUNT_PAYLOAD_UNAVAILABLE);
		return 0;
	}
	if (size > room)
		size = room;
	if (!known_worth) {
		have = gather(&buffer, to->bytes, HEAD_PROBE, size);
		if (have < HEAD_PROBE || have >= size || !is_worth_more(to->bytes[0], room))
			return have;
	}
	return gather(&buffer, to->bytes, REQUEST_HEAD, size);
}

struct segment_space {
	u8 bytes[2 * SEGMENT_PAYLOAD];
};

/* The first SEGMENT_PAYLOAD of its `size` bytes. */
__attribute__((noinline)) u32 copy_user_segment(u64 file, struct segment_space *to, u64 size)
{
	struct user_buffer buffer = {};

	if (!to)
		return 0;
	if (!find_user_buffer(file, &buffer)) {
		count(COUNT_PAYLOAD_UNAVAILABLE);
		return 0;
	}
	return gather(&buffer, to->bytes, SEGMENT_PAYLOAD, size);
}

#endif
