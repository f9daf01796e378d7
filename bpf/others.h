/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Which maps are in use on this machine, in all containers: another wirespan is known by the names of its own.
 *
 * bpf(BPF_MAP_GET_NEXT_ID) would tell it too, but asks for CAP_SYS_ADMIN; a lock file or a socket is of one container.
 */
#ifndef WIRESPAN_OTHERS_H
#define WIRESPAN_OTHERS_H

#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "kernel.h"

/* Writes their names. Those that no process holds are left out: a map outlives its agent until the grace periods of its
 * programs are over.
 */
SEC("iter/bpf_map")
int list_maps(struct bpf_iter__bpf_map *ctx)
{
	struct bpf_map *map = ctx->map;
	char name[sizeof(map->name)];

	if (!map || !map->usercnt.counter)
		return 0;
	bpf_core_read(name, sizeof(name), &map->name);
	bpf_seq_write(ctx->meta->seq, name, sizeof(name));
	return 0;
}

#endif
