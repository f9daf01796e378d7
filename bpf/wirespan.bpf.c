// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* The kernel side of wirespan: thin programs around the state machine of exchange.h.
 *
 *   tp_btf/sock_send_length, sock_recv_length   every byte that a process moves through a socket   (kernel >= 6.3)
 *   tp_btf/tcp_sendmsg_locked                   when a send begins: the hook above runs when it returned
 *   tp_btf/sk_data_ready                        bytes arrived that nobody has read yet
 *   tp_btf/inet_sock_set_state                  connections: role, addresses, selection
 *   tp_btf/tcp_destroy_sock                     the end of a connection
 *   iter/bpf_sk_storage_map                     finishes what has been quiet for `settle`
 *
 * State lives in the socket's own storage. Programs in tracepoints cannot be preempted, and a program is not entered
 * twice on one CPU, so a scratch entry per CPU and direction is never shared.
 */
#include <linux/bpf.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "counting.h"
#include "exchange.h"
#include "kernel.h"
#include "payload.h"
#include "resp.h"
#include "siphash.h"

/* Kernels before 6.11 lack them: there a preempted finish_quiet() may make others wait for the lock. */
extern void bpf_preempt_disable(void) __ksym __weak;
extern void bpf_preempt_enable(void) __ksym __weak;

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Set before load. */
const volatile u64 settle = 1000000000;
const volatile u64 request_timeout = 30000000000;
const volatile u8 select_ports = 0; /* only server ports in the map `ports` */
const volatile u64 sampling_threshold = 0; /* a span is kept if the low 56 bits of its trace id are at or above */
const volatile u64 id_key[2] = {};
const volatile u64 boot_id = 0;

/* The agent's own thread group, as the kernel numbers it. */
u32 agent_tgid = 0;

/* Set when nothing is attached any more: every response is complete then. */
u8 stopping = 0;

struct connection {
	u32 locked;
	u32 end_told; /* segment mode: nothing has moved since a segment said that the connection ended */
	struct turns turns;
	u8 slack[2 *
		 REQUEST_HEAD]; /* the verifier adds up the largest offset of a head and the space read_head() asks */
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct connection);
} connections SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, u16);
	__type(value, u8);
} ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 23);
} short_exchanges SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 22);
} long_exchanges SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 23);
} segments SEC(".maps");

/* Client sockets of this machine by their local end, so that the accepting end knows whether its peer is seen too,
 * or is the agent. Loopback addresses are told apart by network namespace.
 */
struct client_key {
	u64 address[2];
	u32 netns;
	u16 port;
	u16 reserved;
};

enum client_kind {
	CLIENT_OBSERVED = 1,
	CLIENT_AGENT = 2,
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct client_key);
	__type(value, u8);
} clients SEC(".maps");

/* Room for one I/O: its first bytes, or a whole segment behind its header; and for the request bytes that a socket
 * had collected when it changes to segment mode.
 */
struct scratch {
	struct segment pending;
	u8 pending_head[REQUEST_HEAD];
	struct segment header;
	u8 payload[2 * SEGMENT_PAYLOAD];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2); /* 2 * cpus, set before load */
	__type(key, u32);
	__type(value, struct scratch);
} scratch SEC(".maps");

enum protocol protocol_names;
enum outcome outcome_names;
enum role role_names;
enum direction direction_names;
enum exchange_flag exchange_flag_names;
struct segment segment_layout;

/* ---- the lock of a connection ---------------------------------------------------------------------------- */

/* Compare-and-swap costs 2 ns where bpf_spin_lock(), which disables interrupts, costs 43. Interrupts may stay on because
 * nothing that takes this lock runs in one while its socket is in use by a system call; preemption is off in
 * tracepoints and in finish_quiet(), so a holder is done within a microsecond. Who cannot have it all the same (a
 * hypervisor may stop a CPU) gives up: counted, and the bytes are found by position at the next I/O.
 */
#define LOCK_TRIES 100000

static long try_lock(u32 index, u32 **locked)
{
	return !__sync_val_compare_and_swap(*locked, 0, 1);
}

__attribute__((noinline)) int lock_contended(struct connection *c)
{
	u32 *locked;

	if (!c)
		return 0;
	locked = &c->locked;
	if (bpf_loop(LOCK_TRIES, try_lock, &locked, 0) < LOCK_TRIES)
		return 1;
	count(COUNT_CONTENDED);
	return 0;
}

inline_always int lock(struct connection *c)
{
	return !__sync_val_compare_and_swap(&c->locked, 0, 1) || lock_contended(c);
}

inline_always void unlock(struct connection *c)
{
	barrier();
	*(volatile u32 *)&c->locked = 0; /* x86-64 keeps stores in order */
}

/* ---- output ---------------------------------------------------------------------------------------------- */

/* SipHash input as in receiver/ids.py: address, port and sequence, position, scope. */
inline_always u64 trace_id_low56(const struct exchange *x)
{
	const struct connection_info *c = &x->connection;
	int client = c->role == ROLE_CLIENT;
	const u64 *address = (const u64 *)(client ? c->local_address : c->remote_address);
	return wirespan_trace_low56(id_key[0], id_key[1], address, client ? c->local_port : c->remote_port,
				    c->sequence + (u32)x->position, x->position, c->netns, boot_id);
}

inline_always void output_exchange(struct turns *t, u32 slot)
{
	struct exchange *x = &t->slots[slot & 1];
	long failed;

	count(COUNT_OBSERVED);
	if (sampling_threshold && trace_id_low56(x) < sampling_threshold) {
		count(COUNT_SAMPLED_OUT);
	} else {
		if (x->request_captured <= REQUEST_HEAD_SHORT)
			failed = bpf_ringbuf_output(&short_exchanges, x, EXCHANGE_SHORT, BPF_RB_NO_WAKEUP);
		else
			failed = bpf_ringbuf_output(&long_exchanges, x, sizeof(*x), BPF_RB_NO_WAKEUP);
		if (failed)
			count(COUNT_DROPPED_RING_FULL);
	}
}

inline_always void output_segment(const struct segment *segment, u32 captured)
{
	count(COUNT_SEGMENTS);
	if (captured > SEGMENT_PAYLOAD)
		return;
	if (bpf_ringbuf_output(&segments, (void *)segment, sizeof(*segment) + captured, BPF_RB_NO_WAKEUP))
		count(COUNT_SEGMENTS_RING_FULL);
}

/* The request bytes that a turn had collected, as a segment of their own. */
inline_always void output_pending(struct scratch *s, const struct exchange *x, u8 direction, u8 protocol)
{
	struct segment *segment = &s->pending;

	segment->connection = x->connection;
	segment->process = x->process;
	segment->arrivals[0].time = x->arrived;
	segment->arrivals[0].begin = x->position;
	segment->arrivals[0].end = x->position + x->request_size;
	segment->position = x->position;
	segment->start = x->request_start;
	segment->end = x->request_end;
	segment->size = x->request_size;
	segment->captured = x->request_captured;
	segment->direction = direction;
	segment->protocol = protocol;
	__builtin_memcpy(s->pending_head, x->request_head, REQUEST_HEAD);
	output_segment(segment, x->request_captured <= REQUEST_HEAD ? x->request_captured : 0);
}

inline_always struct scratch *scratch_of(u8 direction)
{
	u32 index = bpf_get_smp_processor_id() * 2 + direction;

	return bpf_map_lookup_elem(&scratch, &index);
}

/* An I/O in segment mode, behind what its socket had collected when it changed to it. */
inline_always void output_segments(struct connection *c, const struct io *io, u64 size, u8 direction,
				   const struct effects *fx, const struct user_buffer *buffer, int readable)
{
	struct scratch *s = scratch_of(direction);
	struct turns *t = &c->turns;
	struct segment *segment;

	if (!s)
		return;
	if (fx->pending) {
		output_pending(s, &t->slots[(fx->pending - 1) & 1], request_direction(t), t->protocol);
		t->emitting[(fx->pending - 1) & 1] = 0;
	}
	c->end_told = 0;
	segment = &s->header;
	segment->connection = t->slots[0].connection;
	segment->process = io->process;
	segment->position = fx->position;
	segment->start = io->start;
	segment->end = io->end;
	segment->size = size;
	segment->captured = readable ? read_segment(buffer, (struct segment_space *)s->payload, size) : 0;
	segment->direction = direction;
	segment->protocol = t->protocol;
	if (direction == DIRECTION_RECEIVED) {
		__builtin_memset(segment->arrivals, 0, sizeof(segment->arrivals));
		if (lock(c)) {
			take_arrivals(t, segment->arrivals);
			unlock(c);
		}
	}
	if (segment->captured < size)
		count_many(COUNT_SEGMENT_BYTES_SKIPPED, size - segment->captured);
	output_segment(segment, segment->captured);
}

/* A segment of no bytes: the connection is gone. May run in a softirq, so it stays off `scratch`. */
inline_always void output_end(const struct turns *t, u64 now, u8 outcome)
{
	struct segment *segment = bpf_ringbuf_reserve(&segments, sizeof(*segment), 0);

	count(COUNT_SEGMENTS);
	if (!segment) {
		count(COUNT_SEGMENTS_RING_FULL);
		return;
	}
	__builtin_memset(segment, 0, sizeof(*segment));
	segment->connection = t->slots[0].connection;
	segment->start = now;
	segment->end = now;
	segment->protocol = t->protocol;
	segment->outcome = outcome;
	bpf_ringbuf_submit(segment, BPF_RB_NO_WAKEUP);
}

/* What follows from an I/O, or from the end of a connection, once the lock is released. */
inline_always void carry_out(struct connection *c, const struct effects *fx)
{
	if (fx->finished) {
		output_exchange(&c->turns, fx->finished - 1);
		c->turns.emitting[(fx->finished - 1) & 1] = 0;
	}
	if (fx->contended) {
		count(COUNT_OBSERVED);
		count(COUNT_DROPPED_CONTENDED);
	}
	if (fx->pushed)
		count(COUNT_MESSAGES_PUSHED);
	if (fx->continued)
		count(COUNT_MESSAGES_CONTINUED);
	if (fx->interim)
		count(COUNT_MESSAGES_INTERIM);
	if (fx->early)
		count_many(COUNT_BYTES_BEFORE_HOOK, fx->early);
}

/* ---- I/O ------------------------------------------------------------------------------------------------- */

inline_always void describe_process(struct process_info *process, struct task_struct *task)
{
	struct task_struct *leader = task->group_leader;

	process->start_time = leader->start_boottime;
	process->tgid = task->tgid;
	process->exec_id = task->self_exec_id;
	__builtin_memcpy(process->comm, leader->comm, sizeof(process->comm));
}

/* Whether a FIN has been queued for sending, if the sending side is shut down. */
inline_always int is_closing(u8 state)
{
	return (state >= TCP_FIN_WAIT1 && state <= TCP_CLOSE) || state == TCP_LAST_ACK || state == TCP_CLOSING;
}

/* A FIN was received. It counts as a byte in the socket's positions. */
inline_always int has_fin(const struct sock *sk)
{
	return sk->__sk_common.skc_flags >> SOCK_DONE & 1;
}

/* Payload bytes that have reached the socket's buffer since the connection began. */
inline_always u64 received_payload(const struct sock *sk, const struct tcp_sock *tp)
{
	return tp->bytes_received - has_fin(sk);
}

/* By direction, the sequence number behind the last byte that moved, without FIN. */
inline_always void next_sequences(struct sock *sk, struct tcp_sock *tp, u32 *sequence)
{
	u32 copied = tp->copied_seq;

	sequence[DIRECTION_SENT] =
		tp->write_seq - (sk->sk_shutdown & SEND_SHUTDOWN && is_closing(sk->__sk_common.skc_state));
	sequence[DIRECTION_RECEIVED] = copied - (has_fin(sk) && copied == tp->rcv_nxt);
}

/* Copy the first bytes of an I/O to where the state machine will look for them. */
inline_always void capture_head(struct turns *t, struct io *io, const struct user_buffer *buffer)
{
	struct exchange *x = &t->slots[io->place.slot & 1];
	u32 at = io->place.at;
	u8 *to;

	opaque(at);
	if (io->place.side == HEAD_REQUEST) {
		at &= REQUEST_HEAD - 1;
		to = x->request_head + at;
		io->captured = read_head(buffer, (struct head_space *)to, io->size, REQUEST_HEAD - at);
		if (!at && to[0] == '*')
			io->command_size = resp_command_size((const struct head *)x->request_head, io->captured);
	} else {
		at &= RESPONSE_HEAD - 1;
		to = x->response_head + at;
		io->captured = read_head(buffer, (struct head_space *)to, io->size, RESPONSE_HEAD - at);
	}
}

/* The ids of both ends would differ: no pairs. */
inline_always void decide_by_hooks(struct turns *t)
{
	t->by_hooks = 1;
	t->slots[0].connection.flags &= ~FLAG_PEER_OBSERVED;
	t->slots[1].connection.flags &= ~FLAG_PEER_OBSERVED;
	count(COUNT_CONNECTIONS_BY_HOOKS);
}

inline_always void on_socket_io(struct sock *sk, u64 size, u8 direction, int discarded)
{
	struct connection *c = bpf_sk_storage_get(&connections, sk, 0, 0);
	struct task_struct *task = bpf_get_current_task_btf();
	struct user_buffer buffer = {};
	struct effects fx = {};
	struct io io = {};
	struct tcp_sock *tp;
	struct turns *t;
	u32 sequence[2];
	int wants_head, late, readable = 0;

	if (!c && !select_ports)
		count(COUNT_IO_UNWATCHED);
	if (!c || c->turns.mode == MODE_IGNORED)
		return;
	t = &c->turns;
	tp = bpf_skc_to_tcp_sock(sk);
	if (!tp)
		return;
	io.size = size;
	io.end = bpf_ktime_get_ns();
	io.start = io.end;
	if (direction == DIRECTION_SENT) {
		if (t->send_started)
			io.start = t->send_started;
		else
			io.start_unknown = 1;
	}
	next_sequences(sk, tp, sequence);
	if (tp->inet_conn.icsk_ulp_ops && !t->by_hooks)
		decide_by_hooks(t);
	late = !t->by_hooks && moved_unseen(t, direction, sequence[direction]) <= 0;
	wants_head = t->mode == MODE_TURNS && predict_head(t, direction, late, &io.place);
	/* An I/O of RESP that starts nothing may still be the one that changes to segments. */
	if (!discarded && (wants_head || t->mode == MODE_SEGMENTS || t->protocol == PROTOCOL_RESP)) {
		readable = find_user_buffer(task, sk, &buffer);
		if (!readable)
			count(COUNT_PAYLOAD_UNAVAILABLE);
	}
	if (readable && wants_head)
		capture_head(t, &io, &buffer);
	describe_process(&io.process, task);

	if (!lock(c))
		return;
	on_io(t, direction, &io, sequence, &fx);
	unlock(c);

	carry_out(c, &fx);
	if (fx.segment)
		output_segments(c, &io, size, direction, &fx, &buffer, readable);
}

inline_always void on_socket_end(struct connection *c, struct sock *sk, u8 outcome)
{
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
	struct effects fx = {};
	u64 now = bpf_ktime_get_ns();
	u32 sequence[2];

	if (c->turns.mode == MODE_SEGMENTS) { /* told once, however often the end is read */
		if (!c->end_told)
			output_end(&c->turns, now, outcome);
		c->end_told = 1;
		return;
	}
	if (!tp)
		return;
	next_sequences(sk, tp, sequence);

	if (!lock(c))
		return;
	on_end(&c->turns, outcome, now, sequence, &fx);
	unlock(c);
	carry_out(c, &fx);
}

inline_always int is_tcp(const struct sock *sk)
{
	return sk->sk_protocol == IPPROTO_TCP &&
	       (sk->__sk_common.skc_family == AF_INET || sk->__sk_common.skc_family == AF_INET6);
}

SEC("tp_btf/sock_send_length")
int BPF_PROG(sock_send_length, struct sock *sk, int ret, int flags)
{
	struct connection *c;

	if (!is_tcp(sk))
		return 0;
	if (ret > 0) {
		on_socket_io(sk, ret, DIRECTION_SENT, 0);
	} else {
		c = bpf_sk_storage_get(&connections, sk, 0, 0);
		if (c)
			c->turns.send_started = 0;
	}
	return 0;
}

inline_always int is_connection_error(int error)
{
	return error == ECONNRESET || error == EPIPE || error == ETIMEDOUT || error == ECONNABORTED ||
	       error == EHOSTUNREACH || error == ENETUNREACH;
}

SEC("tp_btf/sock_recv_length")
int BPF_PROG(sock_recv_length, struct sock *sk, int ret, int flags)
{
	struct connection *c;

	if (ret == -EAGAIN || flags & (MSG_PEEK | MSG_ERRQUEUE | MSG_OOB) || !is_tcp(sk))
		return 0;
	if (ret > 0) {
		on_socket_io(sk, ret, DIRECTION_RECEIVED, flags & MSG_TRUNC); /* MSG_TRUNC leaves the buffer alone */
		return 0;
	}
	c = bpf_sk_storage_get(&connections, sk, 0, 0);
	if (!c)
		return 0;
	/* For a server the end of the requests is not the end of its response (half-close). */
	if (ret == 0 && has_fin(sk) && c->turns.slots[0].connection.role == ROLE_CLIENT)
		on_socket_end(c, sk, OUTCOME_CONNECTION_CLOSED);
	else if (ret < 0 && is_connection_error(-ret))
		on_socket_end(c, sk, ret == -ECONNRESET ? OUTCOME_CONNECTION_RESET : OUTCOME_CONNECTION_CLOSED);
	return 0;
}

/* Runs once a chunk of a send, under the socket lock. */
SEC("tp_btf/tcp_sendmsg_locked")
int BPF_PROG(tcp_sendmsg_locked, struct sock *sk)
{
	struct connection *c = bpf_sk_storage_get(&connections, sk, 0, 0);

	if (c && !c->turns.send_started)
		c->turns.send_started = bpf_ktime_get_ns();
	return 0;
}

/* Runs in the sender's context or a softirq: `current` means nothing here. */
SEC("tp_btf/sk_data_ready")
int BPF_PROG(sk_data_ready, struct sock *sk)
{
	struct connection *c;
	struct tcp_sock *tp;
	u64 received_to;

	if (!is_tcp(sk))
		return 0;
	c = bpf_sk_storage_get(&connections, sk, 0, 0);
	if (!c || c->turns.mode == MODE_IGNORED)
		return 0;
	tp = bpf_skc_to_tcp_sock(sk);
	if (!tp)
		return 0;
	received_to = received_payload(sk, tp);
	if (!on_arrival(&c->turns, received_to, bpf_ktime_get_ns()))
		count(COUNT_ARRIVALS_FULL);
	return 0;
}

/* ---- connections ----------------------------------------------------------------------------------------- */

inline_always void mapped_address(u8 *to, u32 v4)
{
	((u64 *)to)[0] = 0;
	((u32 *)to)[2] = 0xffff0000; /* ::ffff:a.b.c.d, as it lies in memory on a little-endian machine */
	((u32 *)to)[3] = v4;
}

inline_always void copy_address(u8 *to, const struct in6_addr *from)
{
	((u32 *)to)[0] = from->in6_u.u6_addr32[0];
	((u32 *)to)[1] = from->in6_u.u6_addr32[1];
	((u32 *)to)[2] = from->in6_u.u6_addr32[2];
	((u32 *)to)[3] = from->in6_u.u6_addr32[3];
}

inline_always int is_mapped(const u8 *address)
{
	return !((u64 *)address)[0] && ((u32 *)address)[2] == 0xffff0000;
}

inline_always void describe_connection(struct connection_info *info, struct sock *sk, u8 role)
{
	info->local_port = sk->__sk_common.skc_num;
	info->remote_port = __builtin_bswap16(sk->__sk_common.skc_dport);
	info->netns = sk->__sk_common.skc_net.net->ns.inum;
	info->role = role;
	info->cookie = bpf_get_socket_cookie(sk);
	if (sk->__sk_common.skc_family == AF_INET6) {
		copy_address(info->local_address, &sk->__sk_common.skc_v6_rcv_saddr);
		copy_address(info->remote_address, &sk->__sk_common.skc_v6_daddr);
	} else {
		mapped_address(info->local_address, sk->__sk_common.skc_rcv_saddr);
		mapped_address(info->remote_address, sk->__sk_common.skc_daddr);
	}
	info->family = is_mapped(info->remote_address) ? AF_INET : AF_INET6;
}

inline_always void client_key_of(struct client_key *key, const struct connection_info *info, int local)
{
	__builtin_memcpy(key->address, local ? info->local_address : info->remote_address, sizeof(key->address));
	key->port = local ? info->local_port : info->remote_port;
	key->netns = address_is_loopback(key->address) ? info->netns : 0;
	key->reserved = 0;
}

inline_always int is_selected(const struct sock *sk, u8 role)
{
	u16 port = sk->__sk_common.skc_num;

	if (!select_ports)
		return 1;
	if (role == ROLE_CLIENT)
		port = __builtin_bswap16(sk->__sk_common.skc_dport);
	return bpf_map_lookup_elem(&ports, &port) != NULL;
}

inline_always void watch(struct sock *sk, u8 role)
{
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
	struct connection_info *info;
	struct client_key key = {};
	struct connection *c;
	struct turns *t;
	u8 kind = CLIENT_OBSERVED, *peer = NULL;

	if (!tp)
		return;
	c = bpf_sk_storage_get(&connections, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!c) {
		count(COUNT_CONNECTIONS_NO_STORAGE);
		return;
	}
	t = &c->turns;
	info = &t->slots[0].connection;
	describe_connection(info, sk, role);
	client_key_of(&key, info, role == ROLE_CLIENT);
	if (role == ROLE_CLIENT) {
		/* bytes_acked counts the SYN at this end */
		t->sequence[DIRECTION_SENT] = tp->snd_una - (u32)tp->bytes_acked + 1;
		if (t->mode == MODE_IGNORED)
			kind = CLIENT_AGENT;
		bpf_map_update_elem(&clients, &key, &kind, BPF_ANY);
	} else {
		t->sequence[DIRECTION_SENT] = tp->write_seq;
		peer = bpf_map_lookup_elem(&clients, &key);
		if (peer && *peer == CLIENT_AGENT)
			t->mode = MODE_IGNORED;
		else if (peer)
			info->flags |= FLAG_PEER_OBSERVED;
	}
	t->sequence[DIRECTION_RECEIVED] = tp->rcv_nxt - (u32)tp->bytes_received;
	info->sequence = t->sequence[request_direction(t)];
	t->slots[1].connection = *info;
	if (t->mode != MODE_IGNORED)
		count(COUNT_CONNECTIONS);
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(inet_sock_set_state, struct sock *sk, int oldstate, int newstate)
{
	struct connection *c;
	u8 role;

	if (!is_tcp(sk))
		return 0;
	/* connect() runs in its caller: the only moment at which the agent's own sockets can be told. */
	if (newstate == TCP_SYN_SENT && bpf_get_current_pid_tgid() >> 32 == agent_tgid) {
		c = bpf_sk_storage_get(&connections, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
		if (c)
			c->turns.mode = MODE_IGNORED;
	}
	if (newstate != TCP_ESTABLISHED || (oldstate != TCP_SYN_SENT && oldstate != TCP_SYN_RECV))
		return 0;
	role = oldstate == TCP_SYN_SENT ? ROLE_CLIENT : ROLE_SERVER;
	if (is_selected(sk, role))
		watch(sk, role);
	return 0;
}

SEC("tp_btf/tcp_destroy_sock")
int BPF_PROG(tcp_destroy_sock, struct sock *sk)
{
	struct connection *c = bpf_sk_storage_get(&connections, sk, 0, 0);
	struct client_key key = {};
	struct connection_info *info;

	if (!c)
		return 0;
	info = &c->turns.slots[0].connection;
	if (info->role == ROLE_CLIENT) {
		client_key_of(&key, info, 1);
		bpf_map_delete_elem(&clients, &key);
	}
	if (c->turns.mode != MODE_IGNORED)
		on_socket_end(c, sk, sk->sk_err == ECONNRESET ? OUTCOME_CONNECTION_RESET : OUTCOME_CONNECTION_CLOSED);
	return 0;
}

/* Read by user space every half `settle`. */
SEC("iter/bpf_sk_storage_map")
int finish_quiet(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct sock *sk = ctx->sk;
	struct effects fx = {};
	struct connection *c;
	struct tcp_sock *tp;
	struct turns *t;
	u64 now;
	int unread;

	if (!sk)
		return 0;
	c = bpf_sk_storage_get(&connections, sk, 0, 0);
	if (!c || c->turns.phase == PHASE_IDLE)
		return 0;
	tp = bpf_skc_to_tcp_sock(sk);
	if (!tp)
		return 0;
	t = &c->turns;
	now = bpf_ktime_get_ns();
	unread = t->slots[0].connection.role == ROLE_CLIENT &&
		 received_payload(sk, tp) > t->position[DIRECTION_RECEIVED];
	if (bpf_preempt_disable)
		bpf_preempt_disable();
	if (lock(c)) {
		on_quiet(t, now, stopping ? 0 : settle, request_timeout, unread && !stopping, &fx);
		unlock(c);
	}
	if (bpf_preempt_enable)
		bpf_preempt_enable();
	carry_out(c, &fx);
	return 0;
}

/* Run once by the agent: in a pid namespace its getpid() is not the number that the kernel compares with. */
SEC("syscall")
int identify_agent(void *ctx)
{
	agent_tgid = bpf_get_current_pid_tgid() >> 32;
	return 0;
}
