"""Processes are included and excluded by what they are: what is not selected never leaves, what is selected is whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support import servers
from support.agent import Agent
from support.asking import Client, answering, control_group, interpreter, move
from support.availability import need_command
from support.exchanges import PROGRAMS, assert_all_accounted, assert_paired, of_kind, watch
from support.servers import Listening
from support.spans import Span

pytestmark = pytest.mark.requires_bpf

CONNECTIONS = 5
REQUESTS = 20
EXCHANGES = CONNECTIONS * REQUESTS

Given = Callable[["Scene"], Any]


@dataclass
class Scene:
    """Two servers and a client of both. ``one`` is the one that is meant by each of the selections below."""

    folder: Path
    one: Listening
    other: Listening
    client: Client
    group: Path | None

    def watch(self, **select: Any) -> Agent:
        ports = [self.one.port, self.other.port]
        return watch(self.folder, ebpf={"select": {"ports": ports, **select}, "settle": "50ms"})


@contextmanager
def scene(folder: Path, version: str = "") -> Iterator[Scene]:
    """version: of the control groups that the servers are in, if any."""
    with ExitStack() as stack:
        group = None
        if version:
            name = f"wirespan-{os.getpid()}"
            around = stack.enter_context(control_group(version, name))
            group = stack.enter_context(control_group(version, f"{name}/pod-one"))
        one, other = (
            stack.enter_context(answering(folder, name, executable=interpreter(folder / "bin", f"{name}-python")))
            for name in ("one", "other")
        )
        if group:
            move(one.process.pid, group)
            move(other.process.pid, around)
        yield Scene(folder, one, other, stack.enter_context(Client(one.port, other.port)), group)


def below_root(group: Path | None) -> str:
    assert group is not None
    return "/" + "/".join(group.parts[5:])


BY_EXECUTABLE = pytest.param("executables", lambda scene: f"{scene.folder}/*/one-*", "", id="executable")
BY_SERVICE = pytest.param("services", lambda scene: "o?e", "", id="service")
BY_PID = pytest.param("pids", lambda scene: scene.one.process.pid, "", id="pid")
BY_CGROUP_V1 = pytest.param("cgroups", lambda scene: f"*{below_root(scene.group)[-8:]}", "v1", id="cgroup v1")
BY_CGROUP_V2 = pytest.param("cgroups", lambda scene: below_root(scene.group), "v2", id="cgroup v2")
EACH_KEY = pytest.mark.parametrize(
    ("key", "entry", "version"), [BY_EXECUTABLE, BY_SERVICE, BY_PID, BY_CGROUP_V1, BY_CGROUP_V2]
)


def by_service(spans: list[Span]) -> Counter[tuple[str, str]]:
    return Counter((span["kind"], span["resource"]["service.name"]) for span in spans)


@EACH_KEY
def test_only_what_is_included_leaves(tmp_path: Path, key: str, entry: Given, version: str) -> None:
    with (
        scene(tmp_path, version) as found,
        found.watch(**{key: ["/nobody" if key != "pids" else 1, entry(found)]}) as agent,
    ):
        found.client.ask(CONNECTIONS, REQUESTS)
        agent.wait_for_spans(EXCHANGES)
        spans = agent.stop()
        account = assert_all_accounted(agent)
    assert by_service(spans) == {("SERVER", "one"): EXCHANGES}
    assert {span["attributes"]["server.port"] for span in spans} == {found.one.port}
    assert {span["parent_span_id"] for span in spans} == {""}, "the client's span, which is not there, is a parent"
    assert (account["observed"], account["excluded"]) == (4 * EXCHANGES, 3 * EXCHANGES)


@EACH_KEY
def test_what_is_excluded_does_not_leave(tmp_path: Path, key: str, entry: Given, version: str) -> None:
    with scene(tmp_path, version) as found, found.watch(exclude={key: [entry(found)]}) as agent:
        found.client.ask(CONNECTIONS, REQUESTS)
        agent.wait_for_spans(3 * EXCHANGES)
        spans = agent.stop()
        account = assert_all_accounted(agent)
    assert by_service(spans) == {("SERVER", "other"): EXCHANGES, ("CLIENT", "asking"): 2 * EXCHANGES}
    assert (account["observed"], account["excluded"]) == (4 * EXCHANGES, EXCHANGES)
    assert_paired([span for span in spans if span["attributes"]["server.port"] == found.other.port], EXCHANGES)


def test_every_key_that_is_given_must_match(tmp_path: Path) -> None:
    with scene(tmp_path) as found:
        pids = [found.one.process.pid, found.other.process.pid]
        with found.watch(pids=pids, services=["o*"], exclude={"executables": ["*/other-python"]}) as agent:
            found.client.ask(CONNECTIONS, REQUESTS)
            agent.wait_for_spans(EXCHANGES)
            spans = agent.stop()
    assert by_service(spans) == {("SERVER", "one"): EXCHANGES}


def test_a_pair_is_whole_if_both_ends_are_included(tmp_path: Path) -> None:
    with scene(tmp_path) as found, found.watch(services=["one", "asking"]) as agent:
        found.client.ask(CONNECTIONS, REQUESTS)
        agent.wait_for_spans(3 * EXCHANGES)
        spans = agent.stop()
    assert by_service(spans) == {("SERVER", "one"): EXCHANGES, ("CLIENT", "asking"): 2 * EXCHANGES}
    assert_paired([span for span in spans if span["attributes"]["server.port"] == found.one.port], EXCHANGES)


@pytest.mark.alone("others may have ports in that range")
def test_ports_are_excluded_from_a_range(tmp_path: Path) -> None:
    with scene(tmp_path) as found:
        first, last = sorted((found.one.port, found.other.port))
        with found.watch(ports=[f"{first}-{last}"], exclude={"ports": [found.one.port]}) as agent:
            found.client.ask(CONNECTIONS, REQUESTS)
            agent.wait_for_spans(2 * EXCHANGES)
            spans = agent.stop()
            account = assert_all_accounted(agent)
    assert by_service(spans) == {("SERVER", "other"): EXCHANGES, ("CLIENT", "asking"): EXCHANGES}
    assert (account["observed"], account["excluded"]) == (2 * EXCHANGES, 0)


def test_processes_that_share_a_listening_socket_are_told_apart(tmp_path: Path) -> None:
    with answering(tmp_path, "forking", "listening") as server, Client(server.port) as client:
        select = {"ports": [server.port], "exclude": {"pids": [server.process.pid]}}
        with watch(tmp_path, ebpf={"select": select, "settle": "50ms"}) as agent:
            answers: Counter[int] = Counter()
            while len(answers) < 2:
                answers += client.ask(1, REQUESTS)
            expected = 2 * sum(answers.values()) - answers[server.process.pid]
            agent.wait_for_spans(expected)
            spans = agent.stop()
        end_others(answers, server)
    served = Counter(span["attributes"]["process.pid"] for span in of_kind(spans, "SERVER"))
    assert served == {pid: count for pid, count in answers.items() if pid != server.process.pid}
    assert len(of_kind(spans, "CLIENT")) == sum(answers.values())


def end_others(answers: Counter[int], server: Listening) -> None:
    for pid in answers.keys() - {server.process.pid}:
        os.kill(pid, signal.SIGTERM)


def test_processes_that_take_turns_on_one_connection_are_told_apart(tmp_path: Path) -> None:
    with answering(tmp_path, "sharing", "sharing") as server:
        select = {"ports": [server.port], "exclude": {"pids": [server.process.pid]}}
        with watch(tmp_path, ebpf={"select": select, "settle": "50ms"}) as agent, Client(server.port) as client:
            answers = client.ask(1, 2 * REQUESTS)
            agent.wait_for_spans(3 * REQUESTS)
            spans = agent.stop()
        end_others(answers, server)
    assert sorted(answers.values()) == [REQUESTS, REQUESTS]
    (child,) = answers.keys() - {server.process.pid}
    assert Counter(span["attributes"]["process.pid"] for span in of_kind(spans, "SERVER")) == {child: REQUESTS}
    assert len(of_kind(spans, "CLIENT")) == 2 * REQUESTS


def test_of_clients_that_take_turns_on_one_connection_only_the_selected_one_is_a_parent(tmp_path: Path) -> None:
    with answering(tmp_path, "served") as server:
        words = [sys.executable, PROGRAMS / "sharing_client.py", str(server.port), str(REQUESTS)]
        with subprocess.Popen(words, stdin=subprocess.PIPE, text=True) as client:
            select = {"ports": [server.port], "exclude": {"pids": [client.pid]}}
            with watch(tmp_path, ebpf={"select": select, "settle": "50ms"}) as agent:
                assert client.stdin is not None
                client.stdin.write("begin\n")
                client.stdin.flush()
                agent.wait_for_spans(3 * REQUESTS)
                client.communicate(timeout=10)
                spans = agent.stop()
    parents = {span["parent_span_id"] for span in of_kind(spans, "SERVER")} - {""}
    assert {span["span_id"] for span in of_kind(spans, "CLIENT")} == parents
    assert (len(parents), len(spans)) == (REQUESTS, 3 * REQUESTS)
    roots = [span for span in of_kind(spans, "SERVER") if not span["parent_span_id"]]
    assert len(roots) == REQUESTS


@pytest.mark.requires_command("nginx", "ab")
def test_each_of_many_connections_is_paired_where_both_ends_are_selected(tmp_path: Path) -> None:
    requests = 5_000
    with servers.nginx(tmp_path) as server:
        select = {"ports": [server.port], "exclude": {"pids": [1]}}
        with watch(tmp_path, ebpf={"select": select}) as agent:
            words = ["-q", "-n", requests, "-c", 20, f"http://127.0.0.1:{server.port}/"]
            command = [str(need_command("ab")), *map(str, words)]
            subprocess.run(command, check=True, capture_output=True, timeout=60)
            spans = agent.stop()
    assert_paired(spans, requests)


@pytest.mark.requires_command("redis-server", "redis-benchmark")
def test_pipelined_commands_are_paired_where_both_ends_are_selected(tmp_path: Path) -> None:
    requests = 16_000
    with servers.redis(tmp_path) as redis:
        select = {"ports": [redis.port], "exclude": {"pids": [1]}}
        with watch(tmp_path, ebpf={"select": select}) as agent:
            words = ["-p", redis.port, "-n", requests, "-c", 10, "-P", 16, "-t", "get", "-q"]
            command = [str(need_command("redis-benchmark")), *map(str, words)]
            subprocess.run(command, check=True, capture_output=True, timeout=60)
            spans = agent.stop()
    assert len(spans) // 2 >= requests
    assert_paired(spans, len(spans) // 2)


@pytest.mark.parametrize("selected", ["before", "after"])
def test_exec_makes_another_image_of_the_same_process(tmp_path: Path, selected: str) -> None:
    before, after = (interpreter(tmp_path / "bin", name) for name in ("before", "after"))
    with answering(tmp_path, "changing", "exec", after, executable=before) as server:
        select = {"ports": [server.port], "executables": [f"*/{selected}"]}
        with watch(tmp_path, ebpf={"select": select, "settle": "50ms"}) as agent, Client(server.port) as client:
            client.ask(1, 1)
            if selected == "before":  # nobody could tell afterwards what it was
                agent.wait_for_spans(1)
            assert client.ask(0, REQUESTS) == {server.process.pid: REQUESTS}
            expected = 1 if selected == "before" else REQUESTS
            agent.wait_for_spans(expected)
            spans = agent.stop()
    assert [span["resource"]["process.executable.name"] for span in spans] == [selected] * expected


@pytest.mark.alone("nobody else is to start a process meanwhile")
def test_a_process_id_that_is_used_again_is_another_process(tmp_path: Path) -> None:
    with watch(tmp_path, ebpf={"select": {"exclude": {"services": ["first"]}}, "settle": "50ms"}) as agent:
        with answering(tmp_path, "first") as first, Client(first.port) as client:
            client.ask(1, REQUESTS)
            agent.wait_for_spans(REQUESTS)
        pid = first.process.pid
        for _ in range(50):  # others start processes meanwhile
            Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1))
            with answering(tmp_path, "second") as second:
                if second.process.pid == pid:
                    with Client(second.port) as client:
                        client.ask(1, REQUESTS)
                        agent.wait_for_spans(3 * REQUESTS)
                    break
        else:
            pytest.fail(f"process id {pid} was not used again")
        spans = [span for span in agent.stop() if span["attributes"]["server.port"] in (first.port, second.port)]
    servers = of_kind(spans, "SERVER")
    assert Counter(span["resource"]["service.name"] for span in servers) == {"second": REQUESTS}
    assert {span["attributes"]["process.pid"] for span in servers} == {pid}
