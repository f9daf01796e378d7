/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Where the kernel maps all memory: see packet_payload.h.
 *
 * The agent writes a random text into a pipe. The pipe knows the page that holds it, and the text must be found at
 * 64 * page + constant. The constant is a multiple of 1 GiB (memory is mapped, and randomised, by entries of that size),
 * so the low 30 bits are known, and the high ones are near those of the pipe's own address, which is in the same map.
 */
#ifndef WIRESPAN_DIRECT_MAP_H
#define WIRESPAN_DIRECT_MAP_H

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "kernel.h"
#include "packet_payload.h"

#define GIB (1ull << 30)
#define SEARCHED 8192 /* GiB below and above the pipe's address */
#define TEXT_WORDS 4

/* What the agent tells: a pipe's descriptor, and what it wrote into that. */
struct pipe_text {
	u32 fd;
	u32 reserved;
	u64 text[TEXT_WORDS];
};

struct search {
	const struct pipe_text *wanted;
	u64 page; /* address of its struct page */
	u64 offset; /* of the text in it */
	u64 near; /* an address in the map */
	u64 found;
};

static long search_step(u32 index, struct search *s)
{
	/* 0, 1, -1, 2, -2, ... GiB away */
	u64 away = (index + 1) / 2 * GIB;
	u64 base = (s->near & ~(GIB - 1)) + (index & 1 ? away : -away);
	u64 virtual = base + (s->page * BYTES_PER_BYTE_OF_PAGE & (GIB - 1));
	u64 text[TEXT_WORDS];

	if (bpf_probe_read_kernel(text, sizeof(text), (void *)(virtual + s->offset)))
		return 0;
	for (u32 i = 0; i < TEXT_WORDS; i++)
		if (text[i] != s->wanted->text[i])
			return 0;
	s->found = virtual - s->page * BYTES_PER_BYTE_OF_PAGE;
	return 1;
}

/* Run by the agent: sets direct_map. Returns 1 if it was found. */
SEC("syscall")
int find_direct_map(const struct pipe_text *wanted)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct fdtable *fdt = files_of(task)->fdt;
	struct search s = {.wanted = wanted};
	struct pipe_buffer *first;
	struct file *file;

	if (bpf_core_type_size(struct page) * BYTES_PER_BYTE_OF_PAGE != 4096)
		return 0;
	/* Addresses are read as numbers: of a pointer the verifier allows no arithmetic. */
	if (bpf_probe_read_kernel(&file, sizeof(file), fdt->fd + wanted->fd) ||
	    bpf_core_read(&s.near, sizeof(s.near), &file->private_data))
		return 0;
	first = kernel_cast(pipe_inode_info, s.near)->bufs;
	if (bpf_core_read(&s.page, sizeof(s.page), &first->page))
		return 0;
	s.offset = first->offset;
	bpf_loop(2 * SEARCHED, search_step, &s, 0);
	direct_map = s.found;
	return s.found != 0;
}

#endif
