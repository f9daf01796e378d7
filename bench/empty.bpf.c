// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Programs that do nothing, at the hooks that every exchange passes: what being called takes. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("tp_btf/sock_send_length")
int sock_send_length(void *ctx)
{
	return 0;
}

SEC("tp_btf/sock_recv_length")
int sock_recv_length(void *ctx)
{
	return 0;
}

SEC("tp_btf/tcp_sendmsg_locked")
int tcp_sendmsg_locked(void *ctx)
{
	return 0;
}

SEC("tp_btf/sk_data_ready")
int sk_data_ready(void *ctx)
{
	return 0;
}
