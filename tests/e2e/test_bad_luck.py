"""What goes wrong on real machines: each has a clear message or a counter, and no traceback."""

from __future__ import annotations

import os
import random
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from sink import Answer, Sink
from support import servers
from support.agent import COMMAND
from support.availability import need_command, unavailable
from support.certificates import certificate
from support.exchanges import (
    PROGRAMS,
    accounts,
    assert_all_accounted,
    assert_all_exported,
    assert_paired,
    count_kinds,
    of_kind,
    watch,
)
from support.own_metrics import own_metrics
from support.pausing import paused
from support.processes import Process, free_port
from support.servers import Listening
from support.waiting import wait_until

CONFIGURATION = """
receivers: {ebpf: {select: {ports: [6379]}}}
exporters: {file: {path: spans.jsonl}}
service: {pipelines: {traces: {receivers: [ebpf], exporters: [file]}}}
"""

#: Full after some 200 exchanges.
SMALLEST_RINGS = {"exchanges": 65_536, "long_exchanges": 65_536, "segments": 65_536}

SECRET = b"hunter2-Secret"
#: Nothing of this may be taken for something to show. The path of a URL may be shown, so none is secret.
NASTY = [
    SECRET,
    b"\x00\xff" + SECRET,
    b"GET /?q=" + SECRET + b" HTTP/1.1\r\nHost: x\r\nAuthorization: " + SECRET + b"\r\n\r\n",
    b"GET http://" + SECRET + b"@x/ HTTP/1.1\r\nHost: x\r\n\r\n",
    SECRET + b" / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / " + SECRET + b"\r\n\r\n",
    b"HTTP/1.1 200 " + SECRET + b"\r\n\r\n",
    b"HTTP/1.1 999 " + SECRET + b"\r\nContent-Length: -1\r\n\r\n",
    b"*2\r\n$3\r\nGET\r\n$14\r\n" + SECRET + b"\r\n",
    b"*1\r\n$14\r\n" + SECRET + b"\r\n",
    b"*2\r\n$3\r\nGET\r\n$99999999999999999999\r\n" + SECRET,
    b"*-7\r\n$3\r\n" + SECRET + b"\r\n",
    b"*3\r\n$3\r\nSET\r\n$14\r\n" + SECRET + b"\r\n$1\r\nx\r\n*1\r\n$14\r\n" + SECRET + b"\r\n",
    b"-" + SECRET + b" is no error code\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + SECRET,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SECRET,
]


@pytest.fixture
def echo(tmp_path: Path) -> Iterator[Listening]:
    with servers.python_server(PROGRAMS / "echo_server.py", tmp_path) as server:
        yield server


def exchange(port: int, times: int = 1) -> None:
    """On a connection of its own."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        for _ in range(times):
            connection.sendall(b"hello")
            assert connection.recv(5, socket.MSG_WAITALL) == b"hello"


# ---- what keeps it from starting


def run_to_its_end(folder: Path, *prefix: str, configuration: str = CONFIGURATION) -> tuple[int, str]:
    """Exit status and output of a run that cannot start."""
    path = folder / "wirespan.yaml"
    if not path.exists():
        path.write_text(configuration)
    result = subprocess.run(
        [*prefix, COMMAND, "run", "--config", path],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=20,
    )
    assert "Traceback" not in result.stdout
    return result.returncode, result.stdout


@pytest.mark.requires_bpf
@pytest.mark.requires_command("setpriv")
def test_a_user_who_is_not_root_is_told_what_to_type() -> None:
    # The capability is for the interpreter and this checkout, which may be readable by their owner only.
    read_all = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *read_all]
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)  # those of pytest are the owner's too
        status, output = run_to_its_end(Path(folder), *nobody)
    assert status == 1
    (error,) = re.findall("cannot start: cannot load the BPF programs: (.*)", output)
    assert re.match(
        r"cannot load wirespan\.bpf\.o: EPERM \(.*?\): run it as root \(sudo wirespan run\), or grant CAP_BPF", error
    )
    assert "MEMLOCK" not in output
    assert "coverage=" not in output  # nothing ran


@pytest.mark.requires_command("setpriv")
def test_a_configuration_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "wirespan.yaml"
    path.write_text(CONFIGURATION)
    os.chown(path, 65534, 65534)
    path.chmod(0o600)
    # Root without capabilities is a user like any other.
    status, output = run_to_its_end(tmp_path, "setpriv", "--bounding-set=-all", "--inh-caps=-all")
    assert status == 2
    assert "wirespan.yaml" in output
    assert "read" in output


def test_a_wrong_key_is_refused_with_its_line_and_the_right_name(tmp_path: Path) -> None:
    status, output = run_to_its_end(tmp_path, configuration=CONFIGURATION.replace("select", "selcet"))
    assert status == 2
    assert 'wirespan.yaml:2: receivers.ebpf.selcet: unknown key; did you mean "select"?' in output


@pytest.mark.requires_bpf
def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    status, output = run_to_its_end(
        tmp_path, configuration=CONFIGURATION.replace("spans.jsonl", "/nowhere/spans.jsonl")
    )
    assert status == 1
    assert "cannot write /nowhere/spans.jsonl: No such file or directory" in output


# ---- backends

#: seconds; a newcomer's run stays short
DOWN = 60 if os.environ.get("CI") == "true" else 10


def otlp(port: int | None, **settings: object) -> dict[str, object]:
    return {"endpoint": f"http://127.0.0.1:{port}", "tls": {"insecure": True}, **settings}


@pytest.mark.requires_bpf
@pytest.mark.waits("for the backends")
def test_nothing_is_lost_while_backends_are_down(tmp_path: Path, echo: Listening) -> None:
    grpc_port, http_port = free_port(), free_port()
    retry = {"initial_interval": "500ms", "max_interval": "1s"}
    exporters = {
        "otlp_grpc": otlp(grpc_port, retry_on_failure=retry),
        "otlp_http": otlp(http_port, retry_on_failure=retry),
    }
    with watch(tmp_path, echo.port, exporters=exporters) as agent:
        for _ in range(DOWN):
            exchange(echo.port, times=100)
            time.sleep(1)
        with Sink(grpc_port, http_port) as sink:
            expected = 2 * 2 * 100 * DOWN
            wait_until("everything", lambda: sink.span_count >= expected, timeout=30)
            agent.stop()
            assert sink.span_count == expected
            assert len({span.span_id for _, span in sink.spans}) == expected / 2
    for account in accounts(agent):
        assert (account["exported"], account["dropped"], account["unaccounted"]) == (expected / 2, {}, 0)
    assert "Traceback" not in agent.log


@pytest.mark.requires_bpf
def test_what_a_slow_backend_leaves_no_room_for_is_counted(tmp_path: Path, echo: Listening) -> None:
    with Sink(http_port=None) as sink:
        sink.answers.extend([Answer(delay=1.0)] * 2)
        queue = {"num_consumers": 1, "queue_size": 2}
        exporters = {"otlp_grpc": otlp(sink.grpc_port, sending_queue=queue)}
        with watch(tmp_path, echo.port, exporters=exporters, ebpf={"drain_interval": "10ms"}) as agent:
            made = 0
            while "Sending queue is full" not in agent.log:
                exchange(echo.port, times=10)
                made += 10
            agent.stop()
            account = assert_all_accounted(agent)
    assert account["observed"] == 2 * made
    assert account["exported"] == sink.span_count > 0
    assert account["dropped"].keys() == {"enqueue_failed"}
    assert "Sending queue is full" in agent.log


@pytest.mark.requires_bpf
def test_what_a_backend_never_takes_is_counted(tmp_path: Path, echo: Listening) -> None:
    retry = {"initial_interval": "100ms", "max_elapsed_time": "300ms"}
    exporters = {"otlp_http": otlp(free_port(), retry_on_failure=retry)}
    with watch(tmp_path, echo.port, exporters=exporters) as agent:
        exchange(echo.port, times=10)
        agent.stop()
        account = assert_all_accounted(agent)
        assert (account["observed"], account["dropped"]) == (20, {"send_failed": 20})
        assert "Traceback" not in agent.log


@pytest.mark.requires_bpf
@pytest.mark.parametrize("exporter", ["otlp_grpc", "otlp_http"])
def test_a_full_queue_to_a_dead_backend_does_not_hold_up_the_end(
    tmp_path: Path, echo: Listening, exporter: str
) -> None:
    exporters = {exporter: otlp(free_port(), sending_queue={"queue_size": 2})}
    with watch(tmp_path, echo.port, exporters=exporters, ebpf={"drain_interval": "10ms"}) as agent:

        def queue_is_full() -> bool:
            exchange(echo.port)
            return "Sending queue is full" in agent.log

        wait_until("a full queue", queue_is_full)
        begin = time.monotonic()
        agent.stop()
        assert time.monotonic() - begin < 3.0
        account = assert_all_accounted(agent)
    assert account["dropped"].keys() == {"enqueue_failed", "send_failed"}
    assert "Traceback" not in agent.log


# ---- too much at once


@pytest.mark.requires_bpf
def test_what_a_full_ring_has_no_room_for_is_counted(tmp_path: Path, echo: Listening) -> None:
    with watch(tmp_path, echo.port, ebpf={"rings": SMALLEST_RINGS}) as agent:
        with paused(agent.pid):
            exchange(echo.port, times=5000)
        agent.wait_for_spans(1)
        agent.stop()
        account = assert_all_accounted(agent)
        assert account["observed"] == 10_000
        assert account["dropped"].keys() == {"ring_full"}
        assert account["exported"] == sum(count_kinds(tmp_path / "spans.jsonl").values()) > 0


@pytest.mark.requires_bpf
@pytest.mark.requires_command("redis-server")
def test_after_a_full_ring_of_segments_new_connections_are_seen_whole(tmp_path: Path) -> None:
    pipeline = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n" * 16
    answer = b"$-1\r\n" * 16

    def pipelines(port: int, count: int) -> int:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            for _ in range(count):
                connection.sendall(pipeline)
                assert connection.recv(len(answer), socket.MSG_WAITALL) == answer
            own: int = connection.getsockname()[1]
            return own

    with (
        servers.redis(tmp_path) as server,
        watch(tmp_path, server.port, ebpf={"rings": SMALLEST_RINGS}) as agent,
    ):
        with paused(agent.pid):
            pipelines(server.port, 2000)
        agent.wait_for_spans(1)  # of what was in the ring, so there is room now
        own = pipelines(server.port, 5)
        spans = agent.stop()
        assert len(spans) < 2 * 16 * 2000, "the ring was not full"
        assert_paired([span for span in spans if span["attributes"]["client.port"] == own], 16 * 5)
        assert_all_accounted(agent)


#: hooks that run for packets, too
OF_CONNECTIONS = ("inet_sock_set_state", "sk_data_ready", "tcp_destroy_sock")


@pytest.mark.requires_bpf
@pytest.mark.alone("they are a load of their own, and have to fit into the limit of open files")
def test_10_000_connections_opened_and_closed_at_once(tmp_path: Path, echo: Listening) -> None:
    """Where packets of many come in at once while a hook runs on that CPU, the kernel leaves its runs for them out, and counts
    these."""
    connections = 10_000
    with own_metrics() as metrics:
        with watch(tmp_path, echo.port, metrics=metrics) as agent:
            crowd = [sys.executable, str(PROGRAMS / "crowd.py"), str(echo.port), str(connections)]
            result = subprocess.run(crowd, capture_output=True, text=True, timeout=60)
            if "Too many open files" in result.stderr:
                unavailable(f"{connections} connections need a higher limit of open files", obtainable=False)
            assert result.returncode == 0, result.stderr
            spans_file, all_of_them = tmp_path / "spans.jsonl", {"SERVER": connections, "CLIENT": connections}
            with suppress(AssertionError):  # else some were left out
                wait_until("all spans", lambda: count_kinds(spans_file) == all_of_them)
            spans = agent.stop()
        missed = {name: metrics.value("wirespan.hooks.missed", program=name) for name in OF_CONNECTIONS}
    account = assert_all_accounted(agent)
    clients = {span["span_id"] for span in spans if span["kind"] == "CLIENT"}
    parents = [span["parent_span_id"] for span in spans if span["kind"] == "SERVER"]
    assert len(clients) + len(parents) >= 2 * connections - sum(missed.values()), (missed, account)
    assert len(set(parents)) == len(parents), "each server's span has a parent of its own"
    assert any(missed.values()) or clients == set(parents)
    assert_all_exported(agent, len(spans))


@pytest.mark.requires_bpf
def test_connections_without_a_byte_are_no_exchanges(tmp_path: Path, echo: Listening) -> None:
    with watch(tmp_path, echo.port) as agent:
        for _ in range(1000):
            socket.create_connection(("127.0.0.1", echo.port)).close()
        assert agent.stop() == []
        assert_all_exported(agent, 0)


# ---- who and what is seen


@pytest.mark.requires_bpf
def test_a_process_that_is_gone_before_it_is_looked_up_still_has_a_name(tmp_path: Path, echo: Listening) -> None:
    script = f"import socket; c = socket.create_connection(('127.0.0.1', {echo.port})); c.sendall(b'x'); c.recv(1)"
    with watch(tmp_path, echo.port) as agent:
        with paused(agent.pid), Process("short-lived", [sys.executable, "-c", script], tmp_path) as process:
            assert process.popen.wait(10) == 0, process.log
        agent.wait_for_spans(2)
        spans = agent.stop()
        assert_paired(spans, 1)
        (client,) = of_kind(spans, "CLIENT")
        assert client["attributes"]["process.pid"] == process.pid
        assert client["resource"]["service.name"].startswith("python")
        assert "Traceback" not in agent.log


@pytest.mark.requires_bpf
@pytest.mark.requires_command("redis-server", "nginx")
@pytest.mark.parametrize("kind", ["nasty", "random"])
def test_no_garbage_on_any_port_crashes_or_shows(tmp_path: Path, echo: Listening, kind: str) -> None:
    numbers = random.Random(1)
    messages = NASTY if kind == "nasty" else [numbers.randbytes(numbers.randrange(1, 3000)) for _ in range(100)]
    with servers.redis(tmp_path) as redis, servers.nginx(tmp_path) as nginx:
        ports = (echo.port, redis.port, nginx.port)
        with watch(tmp_path, *ports) as agent:
            for port in ports:
                for message in messages:
                    throw(port, message)
            exchange(echo.port)
            spans = agent.stop()
            assert_all_accounted(agent)
            written = (tmp_path / "spans.jsonl").read_bytes()
    assert of_kind(spans, "CLIENT")[-1]["attributes"]["server.port"] == echo.port, "it still watches"
    # What a parser refuses is nevertheless an exchange.
    assert len([span for span in spans if span["kind"] == "CLIENT"]) >= len(messages)
    assert SECRET not in written
    assert SECRET.decode() not in agent.log
    assert "Traceback" not in agent.log
    if kind == "random":
        of_echo = [span for span in spans if span["attributes"]["server.port"] == echo.port]
        assert {span["name"] for span in of_echo} == {f"TCP {echo.port}"}


def throw(port: int, message: bytes) -> None:
    """In two writes, and take what comes until the server ends the connection; it may not like what it gets."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        try:
            connection.sendall(message[:3])
            connection.sendall(message[3:])
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65_536):
                pass
        except ConnectionError:
            pass


@pytest.mark.requires_bpf
@pytest.mark.requires_command("openssl")
def test_ciphertext_is_known_as_such_and_never_shown(tmp_path: Path) -> None:
    openssl, port = str(need_command("openssl")), free_port()
    shown, key = certificate(tmp_path, "there")
    serve = [openssl, "s_server", "-accept", str(port), "-key", str(key), "-cert", str(shown), "-rev"]
    with Process("s_server", serve, tmp_path) as server:
        server.wait_for_port(port)
        with watch(tmp_path, port) as agent:
            connect = [openssl, "s_client", "-connect", f"127.0.0.1:{port}", "-quiet", "-ign_eof"]
            result = subprocess.run(connect, input=SECRET + b"\nCLOSE\n", capture_output=True, timeout=10)
            assert SECRET[::-1] in result.stdout
            spans = agent.stop()
            assert_all_accounted(agent)
    # The handshake and each record of data are turns of their own.
    assert len(of_kind(spans, "CLIENT")) >= 2
    assert {span["name"] for span in spans} == {"TLS handshake", f"TLS {port}"}
    assert SECRET.decode() not in (tmp_path / "spans.jsonl").read_text()
    assert "Traceback" not in agent.log
