"""TLS in the kernel (kTLS): what a process moves is the plaintext, and sequence numbers count records. The handshake, which is
not of the kernel, is left out: both ends are given the same keys.
"""

from __future__ import annotations

import errno
import socket
import struct
from pathlib import Path

import pytest

from support.availability import unavailable
from support.exchanges import assert_all_exported, of_kind, watch
from support.own_metrics import own_metrics

pytestmark = pytest.mark.requires_bpf

REQUESTS = 20
TCP_ULP = 31
# include/uapi/linux/tls.h
SOL_TLS, TLS_TX, TLS_RX = 282, 1, 2
TLS_1_2_VERSION, TLS_CIPHER_AES_GCM_128 = 0x0303, 51


def encrypt(end: socket.socket, sends: bytes, receives: bytes) -> None:
    """sends, receives: the keys, of 16 bytes."""
    try:
        end.setsockopt(socket.IPPROTO_TCP, TCP_ULP, b"tls")
    except OSError as error:
        unavailable(f"this kernel has no kTLS: {errno.errorcode[error.errno or 0]}", obtainable=False)
    for direction, key in ((TLS_TX, sends), (TLS_RX, receives)):
        info = struct.pack("HH8s16s4s8s", TLS_1_2_VERSION, TLS_CIPHER_AES_GCM_128, bytes(8), key, bytes(4), bytes(8))
        end.setsockopt(SOL_TLS, direction, info)


def test_ends_with_tls_in_the_kernel_have_the_sizes_of_the_plaintext_and_no_pairs(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, own_metrics() as metrics:
        port = listening.getsockname()[1]
        with watch(tmp_path, port, metrics=metrics) as agent:
            with socket.create_connection(("127.0.0.1", port)) as client, listening.accept()[0] as server:
                encrypt(client, b"a" * 16, b"b" * 16)
                encrypt(server, b"b" * 16, b"a" * 16)
                for number in range(REQUESTS):
                    client.sendall(bytes(100 + number))
                    assert len(server.recv(1_000)) == 100 + number
                    server.sendall(bytes(3_000 + number))
                    assert len(client.recv(3_000 + number, socket.MSG_WAITALL)) == 3_000 + number
            spans = agent.stop()
            assert_all_exported(agent, 2 * REQUESTS)
    for kind in ("CLIENT", "SERVER"):
        attributes = [span["attributes"] for span in of_kind(spans, kind)]
        sizes = [(one["wirespan.request.size"], one["wirespan.response.size"]) for one in attributes]
        assert sizes == [(100 + number, 3_000 + number) for number in range(REQUESTS)]
    assert {span["parent_span_id"] for span in spans} == {""}
    assert metrics.value("wirespan.connections.unpaired", reason="ulp") == 2
