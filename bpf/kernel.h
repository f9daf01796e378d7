/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The kernel types and fields in use, and no others. CO-RE relocates every access to where the running kernel has
 * the field; order and padding here mean nothing.
 */
#ifndef WIRESPAN_KERNEL_H
#define WIRESPAN_KERNEL_H

#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include "types.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct ns_common {
	unsigned int inum;
};

struct net {
	struct ns_common ns;
};

typedef struct {
	struct net *net;
} possible_net_t;

struct in6_addr {
	union {
		u8 u6_addr8[16];
		u32 u6_addr32[4];
	} in6_u;
};

struct sock_common {
	u32 skc_daddr;
	u32 skc_rcv_saddr;
	u16 skc_dport; /* network order */
	u16 skc_num; /* local port, host order */
	unsigned short skc_family;
	volatile unsigned char skc_state;
	unsigned long skc_flags;
	possible_net_t skc_net;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
};

struct file {
	void *private_data;
};

typedef struct {
	int counter;
} atomic_t;

struct sock;

struct socket {
	struct file *file;
	struct sock *sk;
};

struct kernfs_node {
	u64 id;
};

struct cgroup {
	struct kernfs_node *kn;
};

struct sock_cgroup_data {
	struct cgroup *cgroup; /* of cgroup v2; since Linux 5.16 */
};

struct rb_node {
	struct rb_node *rb_right;
};

struct rb_root {
	struct rb_node *rb_node;
};

struct iov_iter {
	unsigned long count;
};

struct msghdr {
	struct iov_iter msg_iter;
};

struct sk_buff;

struct sk_buff_head {
	struct sk_buff *prev;
	u32 qlen;
};

struct sock {
	struct sock_common __sk_common;
	u16 sk_type;
	u16 sk_protocol;
	u8 sk_shutdown;
	int sk_err;
	atomic_t sk_drops; /* of a listening one: packets that would have become connections */
	int sk_sndbuf;
	u32 sk_max_ack_backlog;
	u8 sk_userlocks;
	struct socket *sk_socket;
	struct sk_buff_head sk_receive_queue;
	struct rb_root tcp_rtx_queue;
	struct sock_cgroup_data sk_cgrp_data;
	void *sk_bpf_storage; /* of any map; NULL: there is none */
};

struct sk_buff {
	struct sk_buff *next;
	struct sk_buff *prev;
	int skb_iif; /* index of the device it came in by */
	u16 transport_header; /* offsets from head */
	u16 network_header;
	u64 skb_mstamp_ns; /* CLOCK_MONOTONIC, when it was handed to the network */
	char cb[48];
	unsigned int len;
	unsigned int data_len;
	unsigned int end;
	unsigned char *head;
	unsigned char *data;
};

struct tcp_skb_cb {
	u32 seq;
	u16 tcp_gso_segs;
};

struct skb_frag {
	unsigned long netmem;
	unsigned int len;
	unsigned int offset;
};

struct skb_shared_info {
	u8 nr_frags;
	struct skb_frag frags[17];
};

struct inet_sock {
	u16 inet_sport; /* network order; stays when skc_num is given up */
};

struct inet_bind_bucket {
	signed char fastreuse;
};

struct tcp_ulp_ops;

struct inet_connection_sock {
	struct inet_bind_bucket *icsk_bind_hash;
	const struct tcp_ulp_ops *icsk_ulp_ops;
	struct {
		u32 lrcvtime; /* when data was received last, in jiffies */
	} icsk_ack;
};

struct minmax_sample {
	u32 v;
};

struct minmax {
	struct minmax_sample s[3];
};

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	u32 copied_seq;
	u32 rcv_nxt;
	u32 snd_una;
	u32 write_seq;
	u64 bytes_received;
	u64 bytes_acked;
	u32 snd_nxt;
	u32 srtt_us; /* eighths of a us; 0: none yet */
	struct minmax rtt_min; /* us */
	u32 packets_out; /* sent and not acknowledged */
	u64 first_tx_mstamp; /* CLOCK_MONOTONIC in us: see first_transmission() */
	u32 lsndtime; /* when data was sent last, in jiffies */
	_Bool is_mptcp; /* a subflow of an MPTCP connection */
	u8 chrono_type : 2; /* enum tcp_chrono: what sending waits for */
	u64 tcp_clock_cache; /* CLOCK_MONOTONIC in ns, when the socket last sent or received a packet, or was read */
};

#define TCP_CHRONO_RWND_LIMITED 2

struct udp_sock {
	struct sk_buff_head reader_queue;
};

struct iphdr {
	u32 saddr;
	u32 daddr;
};

struct ipv6hdr {
	struct in6_addr saddr;
	struct in6_addr daddr;
};

struct udphdr {
	u16 source;
	u16 dest;
};

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

struct thread_info {
	u32 status;
};

struct task_struct {
	struct thread_info thread_info;
	int tgid;
	u64 start_boottime;
	u64 self_exec_id;
	char comm[16];
	struct task_struct *group_leader;
	struct files_struct *files;
};

/* x86-64 */
struct pt_regs {
	unsigned long r10;
	unsigned long r8;
	unsigned long ax;
	unsigned long dx;
	unsigned long si;
	unsigned long di;
	unsigned long orig_ax;
};

struct page {
	unsigned long flags;
};

struct pipe_buffer {
	struct page *page;
	unsigned int offset;
	unsigned int len;
};

struct pipe_inode_info {
	struct pipe_buffer *bufs;
};

struct seq_file;

struct trace_event_raw_tcp_retransmit_skb {
	int err;
};

struct bpf_iter_meta {
	struct seq_file *seq;
	u64 session_id;
	u64 seq_num;
};

typedef struct {
	s64 counter;
} atomic64_t;

struct bpf_map {
	char name[16]; /* BPF_OBJ_NAME_LEN */
	atomic64_t usercnt; /* descriptors, mappings and pins */
};

struct bpf_iter__bpf_map {
	struct bpf_iter_meta *meta;
	struct bpf_map *map;
};

struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	u32 fd;
	struct file *file;
};

struct bpf_iter__bpf_sk_storage_map {
	struct bpf_iter_meta *meta;
	struct bpf_map *map;
	struct sock *sk;
	void *value;
};

#pragma clang attribute pop

/* Exists where the tracepoint does. */
typedef void (*btf_trace_tcp_sendmsg_locked)(void *, const struct sock *, const struct msghdr *, const struct sk_buff *,
					     int);

extern void *bpf_rdonly_cast(const void *object, u32 btf_id) __ksym;

/* Memory of the kernel looked at as a struct of this name. No call, and a load that faults gives 0. */
#define kernel_cast(name, address) \
	((struct name *)bpf_rdonly_cast((const void *)(u64)(address), bpf_core_type_id_kernel(struct name)))

/* An object as one that the verifier does not trust, for loads of pointers. Of a trusted one it wants to know for each such
 * load, each time that it comes by, whether the pointer may be trusted: by the name of a type that no kernel may have, for
 * which it goes through all types, twice to four times, for half a millisecond each. No call.
 */
#define untrusted(name, object) kernel_cast(name, object)

#define netns_of(sk) (untrusted(sock, sk)->__sk_common.skc_net.net->ns.inum)
#define files_of(task) (untrusted(task_struct, task)->files)

/* So many longs are at the beginning of struct pt_regs, which every kernel has: untyped loads came with 6.17. */
#define WORDS 8

struct words {
	u64 word[WORDS];
};

inline_always const struct words *kernel_words(u64 address)
{
	return bpf_rdonly_cast((const void *)address, bpf_core_type_id_kernel(struct pt_regs));
}

/* The address in a pointer of the kernel, as a number: of a pointer, the verifier allows less. */
#define kernel_address(object, name, member) \
	(kernel_words((u64)(object) + bpf_core_field_offset(struct name, member))->word[0])

/* include/net/tcp.h: TCP_SKB_CB() */
#define tcp_skb_cb(skb) kernel_cast(tcp_skb_cb, (u64)(skb) + bpf_core_field_offset(struct sk_buff, cb))

#define AF_INET 2
#define AF_INET6 10

/* include/net/tcp_states.h */
enum {
	TCP_ESTABLISHED = 1,
	TCP_SYN_SENT = 2,
	TCP_SYN_RECV = 3,
	TCP_FIN_WAIT1 = 4,
	TCP_FIN_WAIT2 = 5,
	TCP_TIME_WAIT = 6,
	TCP_CLOSE = 7,
	TCP_CLOSE_WAIT = 8,
	TCP_LAST_ACK = 9,
	TCP_LISTEN = 10,
	TCP_CLOSING = 11,
	TCP_NEW_SYN_RECV = 12,
};

/* include/net/sock.h, enum sock_flags and sk_shutdown */
#define SOCK_DONE 1
#define RCV_SHUTDOWN 1
#define SEND_SHUTDOWN 2
#define SOCK_BINDPORT_LOCK 8 /* of sk_userlocks: bind() named the port */

#define LOOPBACK_IFINDEX 1 /* include/net/flow.h */

/* include/linux/socket.h */
#define MSG_OOB 0x1
#define MSG_PEEK 0x2
#define MSG_TRUNC 0x20
#define MSG_ERRQUEUE 0x2000

#define EAGAIN 11
#define EPIPE 32
#define ENOSYS 38
#define EADDRNOTAVAIL 99
#define ENETUNREACH 101
#define ECONNABORTED 103
#define ECONNRESET 104
#define ETIMEDOUT 110
#define ECONNREFUSED 111
#define EHOSTUNREACH 113

#endif
