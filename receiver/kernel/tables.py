"""What is known of ``bpf/`` by name: its programs, its counters, and the protocols that it tells apart."""

from __future__ import annotations

from types import MappingProxyType

from ...pipeline.counters import CounterKey
from .programs import ProgramSpec

#: what it means that payload cannot be read where the kernel has it
DEARER = "payload is copied from the applications' memory: each I/O costs them some 200 ns more"

PROGRAMS = (
    ProgramSpec("list_maps", False, "nobody is told of another wirespan on this machine"),
    ProgramSpec("identify_agent", True, "the agent would watch itself"),
    ProgramSpec("inet_sock_set_state", True, "the agent would watch itself, and failed connects are not seen"),
    ProgramSpec("join_existing", False, "the first exchange of a connection older than the agent may be a part of one"),
    ProgramSpec("find_direct_map", False, DEARER),
    ProgramSpec("sk_data_ready", False, "it is not known when bytes arrived: no wirespan.queue.duration"),
    ProgramSpec("tcp_sendmsg_locked", False, "a send has the time of its end: wirespan.timing=after_send says so"),
    ProgramSpec("sock_send_length", True, "no byte sent is seen"),
    ProgramSpec("sock_recv_length", True, "no byte received is seen"),
    ProgramSpec("tcp_destroy_sock", True, "the last exchange of each connection is lost"),
    ProgramSpec("finish_quiet", False, "an exchange waits for its connection's next request or end", "connections"),
    ProgramSpec("expire_requests", False, "requests of UDP without an answer are not reported"),
    ProgramSpec("forget_datagrams", False, "idle sockets of UDP keep 8 KB of kernel memory each", "udp_sockets"),
)
#: if there are metrics
METRICS_PROGRAMS = (
    ProgramSpec("tcp_retransmit_skb", False, "there is no wirespan.tcp.retransmits"),
    ProgramSpec("tcp_send_reset", False, "there are no wirespan.tcp.resets that are transmitted"),
    ProgramSpec("tcp_receive_reset", False, "there are no wirespan.tcp.resets that are received"),
    ProgramSpec(
        "list_connections",
        False,
        "there is no wirespan.tcp.connections.open, and no wirespan.tcp.accept_queue.overflows",
    ),
)
#: attached before the others: the agent's sockets, and who is on this machine, are known before anything is watched
FIRST = ("inet_sock_set_state", "join_existing", "list_connections")
#: runs only when it is read
FOR_LAST_LOOK = ("list_connections",)

#: enum counter of bpf/counters.h → metric name and attributes, see receiver/metadata.yaml
COUNTERS: MappingProxyType[str, CounterKey] = MappingProxyType(
    {
        "COUNT_OBSERVED": ("wirespan.exchanges.observed", ()),
        "COUNT_EXCLUDED": ("wirespan.exchanges.excluded", (("reason", "known"),)),
        "COUNT_SAMPLED_OUT": ("wirespan.exchanges.sampled_out", ()),
        "COUNT_FAILED": ("wirespan.exchanges.failed", ()),
        "COUNT_DROPPED_RATE_LIMIT": ("wirespan.exchanges.dropped", (("reason", "rate_limit"),)),
        "COUNT_DROPPED_RING_FULL": ("wirespan.exchanges.dropped", (("reason", "ring_full"),)),
        "COUNT_SEGMENTS": ("wirespan.segments.observed", ()),
        "COUNT_SEGMENTS_EXCLUDED": ("wirespan.segments.excluded", ()),
        "COUNT_SEGMENTS_RING_FULL": ("wirespan.segments.dropped", (("reason", "ring_full"),)),
        "COUNT_SEGMENT_BYTES_SKIPPED": ("wirespan.segments.skipped_bytes", (("reason", "not_captured"),)),
        "COUNT_CONNECTIONS": ("wirespan.connections.observed", ()),
        "COUNT_ATTEMPTS_UNKNOWN": ("wirespan.attempts.unwatched", ()),
        "COUNT_CONNECTIONS_NO_STORAGE": ("wirespan.connections.dropped", (("reason", "no_storage"),)),
        "COUNT_CONNECTIONS_MPTCP": ("wirespan.connections.dropped", (("reason", "mptcp"),)),
        "COUNT_CONNECTIONS_BY_HOOKS": ("wirespan.connections.unpaired", (("reason", "ulp"),)),
        "COUNT_IO_UNWATCHED": ("wirespan.io.unwatched", ()),
        "COUNT_MESSAGES_PUSHED": ("wirespan.messages", (("kind", "push"),)),
        "COUNT_MESSAGES_CONTINUED": ("wirespan.messages", (("kind", "continued"),)),
        "COUNT_MESSAGES_JOINED": ("wirespan.messages", (("kind", "joined"),)),
        "COUNT_MESSAGES_INTERIM": ("wirespan.messages", (("kind", "interim"),)),
        "COUNT_BYTES_BEFORE_HOOK": ("wirespan.io.bytes_before_hook", ()),
        "COUNT_PAYLOAD_UNAVAILABLE": ("wirespan.payload.missing", (("reason", "no_user_buffer"),)),
        "COUNT_PAYLOAD_FAULT": ("wirespan.payload.missing", (("reason", "fault"),)),
        "COUNT_CONTENDED": ("wirespan.io.dropped", (("reason", "contended"),)),
        "COUNT_ARRIVALS_FULL": ("wirespan.arrivals.dropped", ()),
        "COUNT_MESSAGES_ONE_WAY": ("wirespan.messages", (("kind", "one_way"),)),
        "COUNT_DATAGRAMS_QUIC": ("wirespan.messages", (("kind", "quic"),)),
        "COUNT_DATAGRAMS_QUEUE_FULL": ("wirespan.datagrams.unnoted", (("reason", "queue_full"),)),
        "COUNT_DATAGRAMS_PEER_UNKNOWN": ("wirespan.datagrams.unpaired", (("reason", "peer_unknown"),)),
        "COUNT_DATAGRAMS_REQUESTS_FULL": ("wirespan.datagrams.unpaired", (("reason", "requests_full"),)),
    }
)

#: enum protocol → network.protocol.name
PROTOCOLS: MappingProxyType[str, str] = MappingProxyType(
    {
        "PROTOCOL_UNKNOWN": "",
        "PROTOCOL_RESP": "redis",
        "PROTOCOL_TLS": "tls",
        "PROTOCOL_HTTP2": "http",
        "PROTOCOL_HTTP1": "http",
        "PROTOCOL_DNS": "dns",
        "PROTOCOL_POSTGRESQL": "postgresql",
        "PROTOCOL_MYSQL": "mysql",
        "PROTOCOL_MEMCACHED": "memcached",
    }
)
