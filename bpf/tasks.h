/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What a task is to the records: the program image that its thread group runs. */
#ifndef WIRESPAN_TASKS_H
#define WIRESPAN_TASKS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "kernel.h"
#include "record.h"

/* Linux 6.2. The number is that of the initial pid namespace. */
extern struct task_struct *bpf_task_from_pid(s32 pid) __ksym __weak;
extern void bpf_task_release(struct task_struct *task) __ksym __weak;

inline_always void describe_task(struct process_info *process, const struct task_struct *task)
{
	const struct task_struct *leader = untrusted(task_struct, task)->group_leader;

	process->start_time = leader->start_boottime;
	process->tgid = task->tgid;
	process->exec_id = task->self_exec_id;
	__builtin_memcpy(process->comm, leader->comm, sizeof(process->comm));
}

/* As it is now; nothing if it is gone, or the kernel cannot tell. */
inline_always void describe_thread_group(struct process_info *process, u32 tgid)
{
	struct task_struct *task;

	if (!tgid || !bpf_task_from_pid || !bpf_task_release)
		return;
	task = bpf_task_from_pid(tgid);
	if (!task)
		return;
	describe_task(process, task);
	bpf_task_release(task);
}

#endif
