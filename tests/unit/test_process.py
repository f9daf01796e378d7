"""Resources of real processes: their names, and that no process gets what belongs to another."""

from __future__ import annotations

import json
import logging
import os
import resource as limits
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from support import availability
from support.waiting import wait_until
from wirespan.pipeline.counters import Counters
from wirespan.pipeline.spans import AttributeValue
from wirespan.receiver.process import ImageKey, ProcessTable
from wirespan.receiver.resource.procfs import COMMAND_LINE_LIMIT

TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
ID = "0123456789abcdef" * 4
WAIT = "import time; time.sleep(60)"
PR_SET_NAME = 15

Resource = Mapping[str, AttributeValue]


@contextmanager
def running(command: Sequence[str | Path], **environment: str) -> Iterator[int]:
    """The process id of a command that runs with no more than this environment; ended with the block."""
    with subprocess.Popen([str(word) for word in command], env=environment, stdin=subprocess.DEVNULL) as process:
        try:
            wait_until("exec", lambda: cmdline(process.pid) not in (b"", cmdline(os.getpid())))
            yield process.pid
        finally:
            process.kill()


def cmdline(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def comm(pid: int) -> bytes:
    return Path(f"/proc/{pid}/comm").read_bytes().rstrip(b"\n")


def start_time(pid: int) -> int:
    """Of a process, in ns, as the kernel's record has it; /proc has it rounded down."""
    ticks = int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
    return ticks * TICK_NS + TICK_NS - 1


def unresolved(counters: Counters) -> dict[str, int]:
    sums = counters.snapshot().items()
    return {dict(key)["reason"]: n for (name, key), n in sums if name == "wirespan.processes.unresolved"}


def look_up(pid: int, table: ProcessTable | None = None, exec_id: int = 1) -> Resource:
    return (table or ProcessTable(Counters())).resource(pid, start_time(pid), exec_id, comm(pid))


# ---- what a resource says -------------------------------------------------------------------------------------------


def test_a_program_of_many_names_is_named_as_it_was_called(tmp_path: Path) -> None:
    program, link = tmp_path / "many-names", tmp_path / "one-name"
    shutil.copy("/bin/sleep", program)
    link.symlink_to(program)
    with running([link, "60"]) as pid:
        resource = look_up(pid)
    assert (resource["service.name"], resource["process.executable.name"]) == ("one-name", "many-names")


def test_a_resource_describes_process_and_host() -> None:
    with running(["/bin/sleep", "60"]) as pid:
        resource = look_up(pid)
        executable = os.readlink(f"/proc/{pid}/exe")
    assert uuid.UUID(str(resource["service.instance.id"])).version == 5
    assert {key: value for key, value in resource.items() if key != "service.instance.id"} == {
        "service.name": "sleep",
        "host.name": socket.gethostname(),
        "process.pid": pid,
        "process.executable.name": os.path.basename(executable),
        "process.executable.path": executable,
    }


def test_a_process_names_itself_by_its_environment() -> None:
    declared = "service.name=other,service.namespace=store,deployment.environment.name=a%2Cb%3Dc%20%C3%BC"
    with running(["/bin/sleep", "60"], OTEL_SERVICE_NAME="shop", OTEL_RESOURCE_ATTRIBUTES=declared) as pid:
        resource = look_up(pid)
    assert resource["service.name"] == "shop"
    assert resource["service.namespace"] == "store"
    assert resource["deployment.environment.name"] == "a,b=c ü"


def test_a_process_may_set_its_instance_and_host_but_not_what_the_kernel_knows() -> None:
    declared = "service.name=shop,service.instance.id=one,host.name=web,process.pid=1,process.executable.name=x"
    with running(["/bin/sleep", "60"], OTEL_RESOURCE_ATTRIBUTES=declared) as pid:
        resource = look_up(pid)
    assert [resource[key] for key in ("service.name", "service.instance.id", "host.name")] == ["shop", "one", "web"]
    assert resource["process.pid"] == pid
    assert resource["process.executable.name"] == "sleep"


def test_nothing_else_of_environment_and_command_line_is_emitted() -> None:
    secrets = {"PASSWORD": "hunter2", "XOTEL_SERVICE_NAME": "hunter2", "A": "OTEL_SERVICE_NAME=hunter2"}
    with running([sys.executable, "-c", WAIT, "--password", "hunter2"], **secrets) as pid:
        resource = look_up(pid)
    assert "hunter2" not in repr(resource)
    assert str(resource["service.name"]).startswith("python")


@pytest.mark.parametrize(
    "options", [[], ["-u"], ["-uB", "-W", "ignore", "-Xutf8"], ["--check-hash-based-pycs", "never"]]
)
def test_a_python_script_is_a_service_of_its_name(options: list[str], tmp_path: Path) -> None:
    script = tmp_path / "app.py"
    script.write_text(WAIT)
    with running([sys.executable, *options, script, "--port", "80"]) as pid:
        assert look_up(pid)["service.name"] == "app"


def test_a_console_script_is_a_service_of_its_name(tmp_path: Path) -> None:
    script = tmp_path / "uvicorn"
    script.write_text(f"#!{sys.executable}\n{WAIT}\n")
    script.chmod(0o755)
    with running([script, "shop:app"]) as pid:
        assert look_up(pid)["service.name"] == "uvicorn"


def test_a_python_module_is_a_service_of_its_name(tmp_path: Path) -> None:
    with running([sys.executable, "-m", "http.server", "0", "--bind", "127.0.0.1", "-d", tmp_path]) as pid:
        assert look_up(pid)["service.name"] == "http.server"


WORKERS = """
import multiprocessing, sys, time
if __name__ == "__main__":
    worker = multiprocessing.get_context(sys.argv[1]).Process(target=time.sleep, args=(60,), daemon=True)
    worker.start()
    print(worker.pid, flush=True)
    worker.join()
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_worker_of_multiprocessing_is_a_service_of_its_programs_name(tmp_path: Path, method: str) -> None:
    script = tmp_path / "shop.py"
    script.write_text(WORKERS)
    with subprocess.Popen([sys.executable, script, method], stdout=subprocess.PIPE, text=True) as program:
        try:
            assert program.stdout is not None
            worker = int(program.stdout.readline())
            wait_until("exec", lambda: method != "spawn" or b"spawn_main" in cmdline(worker))
            assert look_up(worker)["service.name"] == "shop"
        finally:
            program.terminate()


def test_a_worker_whose_program_has_ended_is_not_named_by_who_has_adopted_it() -> None:
    spawned = "from multiprocessing.spawn import spawn_main; import time; time.sleep(60)"
    with running(["sh", "-c", f"{sys.executable} -c '{spawned}' & echo; wait"]) as shell:
        children = Path(f"/proc/{shell}/task/{shell}/children")
        worker = wait_until("fork", lambda: int(children.read_text() or 0))
        wait_until("exec", lambda: cmdline(worker).startswith(sys.executable.encode()))
        assert look_up(worker)["service.name"] == Path(sys.executable).resolve().name
        os.kill(worker, signal.SIGKILL)


def test_a_node_script_is_a_service_of_its_name(tmp_path: Path) -> None:
    node = availability.need_command("node")
    (tmp_path / "server.js").write_text("setTimeout(() => {}, 60000)")
    with running([node, "--no-warnings", tmp_path / "server.js", "secret"]) as pid:
        assert look_up(pid)["service.name"] == "server"


def test_a_perl_script_is_a_service_of_its_name(tmp_path: Path) -> None:
    perl = availability.need_command("perl")
    (tmp_path / "mailer.pl").write_text("sleep 60")
    with running([perl, "-w", "-I", "/tmp", tmp_path / "mailer.pl"]) as pid:
        assert look_up(pid)["service.name"] == "mailer"


def test_a_java_class_is_a_service_of_its_name(tmp_path: Path) -> None:
    java = availability.need_command("java")
    (tmp_path / "Shop.java").write_text(
        "class Shop { public static void main(String[] a) throws Exception { Thread.sleep(60000); } }"
    )
    with running([java, "-Xmx64m", "-cp", tmp_path, tmp_path / "Shop.java", "secret"]) as pid:
        assert look_up(pid)["service.name"] == "Shop"


def test_an_executable_that_was_upgraded_keeps_its_name(tmp_path: Path) -> None:
    program = tmp_path / "server"
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o755)
    with running([program, "60"]) as pid:
        program.unlink()
        assert look_up(pid)["process.executable.path"] == str(program)


def test_a_kernel_thread_is_known_by_its_name() -> None:
    counters = Counters()
    resource = look_up(2, ProcessTable(counters))
    assert resource["service.name"] == "kthreadd"
    assert unresolved(counters) == {}


# ---- exec, fork, reuse ----------------------------------------------------------------------------------------------


@contextmanager
def turning(before: Path, after: Sequence[str | Path]) -> Iterator[tuple[int, Callable[[], None]]]:
    """A python script's process id, and a function that makes it execute another program and waits until it has."""
    words = [str(word) for word in after]
    before.write_text(f"import os, signal; signal.sigwait([signal.SIGUSR1]); os.execv({words[0]!r}, {words!r})")
    with subprocess.Popen([sys.executable, before], preexec_fn=_block_user_signal) as process:

        def turn() -> None:
            old = cmdline(process.pid)
            process.send_signal(signal.SIGUSR1)
            wait_until("exec", lambda: cmdline(process.pid) not in (b"", old))

        try:
            wait_until("exec", lambda: str(before).encode() in cmdline(process.pid))
            yield process.pid, turn
        finally:
            process.kill()


def _block_user_signal() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])


def test_a_process_that_executes_another_program_becomes_another_service(tmp_path: Path) -> None:
    table = ProcessTable(Counters())
    with turning(tmp_path / "first.py", ["/bin/sleep", "60"]) as (pid, turn):
        began, python = start_time(pid), comm(pid)
        first = table.resource(pid, began, 1, python)
        turn()
        second = table.resource(pid, began, 2, comm(pid))
        assert table.resource(pid, began, 1, python) is first
    assert (first["service.name"], second["service.name"]) == ("first", "sleep")
    assert first["service.instance.id"] != second["service.instance.id"]


def test_an_image_that_has_ended_is_known_as_long_as_somebody_asks(tmp_path: Path) -> None:
    counters = Counters()
    table = ProcessTable(counters)
    with turning(tmp_path / "first.py", ["/bin/true"]) as (pid, _):
        image = (pid, start_time(pid), 1, comm(pid))
        first = table.resource(*image)
        for _ in range(3):
            table.forget_ended()
        assert table.resource(*image) is first
    for _ in range(3):
        table.forget_ended()
        assert table.resource(*image) is first
    table.forget_ended()
    assert table.is_final(ImageKey(*image))
    table.forget_ended()
    assert not table.is_final(ImageKey(*image))
    assert unresolved(counters) == {}
    table.resource(*image)
    assert unresolved(counters) == {"gone": 1}


def test_an_image_that_was_replaced_before_it_was_looked_up_is_known_by_its_comm(tmp_path: Path) -> None:
    counters = Counters()
    table = ProcessTable(counters)
    with turning(tmp_path / "first.py", ["/bin/sleep", "60"]) as (pid, turn):
        began, python = start_time(pid), comm(pid)
        turn()
        replaced = table.resource(pid, began, 1, python)
        assert table.resource(pid, began, 2, comm(pid))["service.name"] == "sleep"
    assert replaced["service.name"] == replaced["process.executable.name"] == python.decode()
    assert unresolved(counters) == {"replaced": 1}


def test_a_resource_is_never_of_two_images(tmp_path: Path) -> None:
    for name, other in (("one", "two"), ("two", "one")):
        (tmp_path / name).mkdir()
        shutil.copy("/bin/sh", tmp_path / name / "sh")
        environment = f"OTEL_RESOURCE_ATTRIBUTES=image={other}"
        (tmp_path / name / "run").write_text(f"{environment} exec {tmp_path}/{other}/sh {tmp_path}/{other}/run")
    counters = Counters()
    with running([tmp_path / "one/sh", tmp_path / "one/run"], OTEL_RESOURCE_ATTRIBUTES="image=one") as pid:
        began = start_time(pid)
        found = [ProcessTable(counters).resource(pid, began, 1, b"sh") for _ in range(300)]
    whole = [resource for resource in found if "process.executable.path" in resource]
    assert {resource.get("image") for resource in whole} == {"one", "two"}
    assert all(resource["process.executable.path"] == f"{tmp_path}/{resource['image']}/sh" for resource in whole)
    assert unresolved(counters) == {"replaced": len(found) - len(whole)}


def test_a_process_that_renamed_itself_meanwhile_is_still_found(tmp_path: Path) -> None:
    script = tmp_path / "app.py"
    script.write_text(f"import ctypes; ctypes.CDLL(None).prctl({PR_SET_NAME}, b'worker 1'); {WAIT}")
    with running([sys.executable, script]) as pid:
        wait_until("the new name", lambda: comm(pid) == b"worker 1")
        counters = Counters()
        table = ProcessTable(counters)
        before = table.resource(pid, start_time(pid), 1, os.path.basename(sys.executable).encode()[:15])
        after = look_up(pid, table)
    assert before == after
    assert after["service.name"] == "app"
    assert unresolved(counters) == {}


def test_a_comm_may_hold_any_bytes(tmp_path: Path) -> None:
    name = b"a) R 1 \xff\n("
    script = tmp_path / "app.py"
    script.write_text(f"import ctypes; ctypes.CDLL(None).prctl({PR_SET_NAME}, {name!r}); {WAIT}")
    with running([sys.executable, script]) as pid:
        wait_until("the new name", lambda: comm(pid) == name)
        counters = Counters()
        assert look_up(pid, ProcessTable(counters))["service.name"] == "app"
    assert unresolved(counters) == {}


def test_a_forked_child_is_another_instance_of_the_same_service(tmp_path: Path) -> None:
    script = tmp_path / "prefork.py"
    script.write_text(f"import os; child = os.fork(); print(child, flush=True) if child else 0; {WAIT}")
    table = ProcessTable(Counters())
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        try:
            parents, childs = look_up(process.pid, table), look_up(child, table)
        finally:
            os.kill(child, signal.SIGKILL)
            process.kill()
    assert parents["service.name"] == childs["service.name"] == "prefork"
    assert parents["service.instance.id"] != childs["service.instance.id"]
    assert (parents["process.pid"], childs["process.pid"]) == (process.pid, child)


def test_what_one_table_found_another_may_be_told_of_when_the_process_has_ended() -> None:
    counters = Counters()
    finder, told = ProcessTable(counters), ProcessTable(counters)
    with running(["/bin/sleep", "60"]) as pid:
        image = ImageKey(pid, start_time(pid), 1, comm(pid))
        found = finder.resource(*image)
    told.know(image, found)
    told.know(image, {"service.name": "another"})  # of what is known already nobody is told anew
    assert told.resource(*image) == found
    assert unresolved(counters) == {}


def test_an_instance_has_the_same_id_whenever_it_is_looked_up() -> None:
    with running(["/bin/sleep", "60"]) as pid:
        began, name = start_time(pid), comm(pid)
        alive = look_up(pid)
    gone = ProcessTable(Counters()).resource(pid, began, 1, name)
    assert gone["service.instance.id"] == alive["service.instance.id"]


def test_a_process_that_has_ended_is_known_by_its_comm() -> None:
    with running(["/bin/sleep", "60"]) as pid:
        began = start_time(pid)
    counters = Counters()
    resource = ProcessTable(counters).resource(pid, began, 1, b"sleep")
    assert resource["service.name"] == resource["process.executable.name"] == "sleep"
    assert resource["process.pid"] == pid
    assert unresolved(counters) == {"gone": 1}


def test_a_process_whose_parent_has_not_yet_asked_for_its_status_is_gone() -> None:
    counters = Counters()
    with subprocess.Popen(["/bin/sleep", "60"]) as process:
        began = start_time(process.pid)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert ProcessTable(counters).resource(process.pid, began, 1, b"sleep")["service.name"] == "sleep"
    assert unresolved(counters) == {"gone": 1}


def test_a_comm_of_any_bytes_makes_a_name() -> None:
    table = ProcessTable(Counters())
    assert table.resource(2**22 + 1, 1, 1, b"\xff\xfe")["service.name"] == "\ufffd\ufffd"
    assert table.resource(2**22 + 1, 1, 1, b"")["service.name"] == "unnamed"


def test_a_process_that_ended_keeps_its_resource_while_it_is_cached() -> None:
    table = ProcessTable(Counters())
    with running(["/bin/sleep", "60"], OTEL_SERVICE_NAME="shop") as pid:
        began = start_time(pid)
        alive = look_up(pid, table)
    assert table.resource(pid, began, 1, b"sleep") is alive


REUSE = """
import json, os, pathlib, subprocess, sys, time
sys.path += [os.path.dirname({test!r}), os.path.dirname(os.path.dirname({test!r}))]  # for test_process and support
from test_process import Counters, ProcessTable, cmdline, start_time, unresolved, wait_until

def started_as(pid):
    pathlib.Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1))
    return subprocess.Popen(["/bin/sleep", "60"], env={{"OTEL_SERVICE_NAME": "successor"}})

first = subprocess.Popen(["/bin/sleep", "60"], env={{"OTEL_SERVICE_NAME": "predecessor"}})
began = start_time(first.pid)
first.kill(), first.wait()
time.sleep(0.03)
second = started_as(first.pid)
wait_until("the end of exec", lambda: cmdline(second.pid))  # Popen returns a little earlier
counters = Counters()
table = ProcessTable(counters)
old = table.resource(first.pid, began, 1, b"sleep")
new = table.resource(second.pid, start_time(second.pid), 1, b"sleep")
second.kill()
print(json.dumps([first.pid == second.pid, old["service.name"], new["service.name"], unresolved(counters)]))
"""


def in_new_pid_namespace(script: str) -> subprocess.CompletedProcess[str]:
    availability.need_root()
    unshare = availability.need_command("unshare")
    command = [unshare, "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, "-c", script]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)


def test_a_reused_number_does_not_give_the_successors_resource() -> None:
    run = in_new_pid_namespace(REUSE.format(test=__file__))
    assert json.loads(run.stdout) == [True, "sleep", "successor", {"gone": 1}]


def test_a_proc_of_another_pid_namespace_is_reported_once() -> None:
    script = """
        import logging; logging.basicConfig(format="%(message)s")
        from wirespan.pipeline.counters import Counters
        from wirespan.receiver.process import ImageKey, ProcessTable
        table = ProcessTable(Counters())
        print([table.resource(4000 + i, 1, 1, b"redis-server")["service.name"] for i in range(2)])
    """
    run = in_new_pid_namespace(textwrap.dedent(script))
    assert run.stdout.strip() == "['redis-server', 'redis-server']"
    assert run.stderr.count("namespace of its own") == 1


def test_the_hosts_proc_is_not_reported(caplog: pytest.LogCaptureFixture) -> None:
    availability.need_root()
    with caplog.at_level(logging.INFO, "wirespan"):
        ProcessTable(Counters())
    assert caplog.text == ""


# ---- bounds and errors ----------------------------------------------------------------------------------------------


def test_the_least_recently_used_image_is_forgotten_and_counted() -> None:
    counters = Counters()
    table = ProcessTable(counters, limit=2)
    resources = [table.resource(2**22 + i, 1, 1, b"x") for i in range(2)]
    assert table.resource(2**22, 1, 1, b"x") is resources[0]
    table.resource(2**22 + 2, 1, 1, b"x")
    assert counters.snapshot()["wirespan.processes.evicted", ()] == 1
    assert table.resource(2**22, 1, 1, b"x") is resources[0]
    assert table.resource(2**22 + 1, 1, 1, b"x") is not resources[1]


def test_what_may_not_be_read_is_left_out_and_counted() -> None:
    availability.need_root()
    with running(["/bin/sleep", "60"], OTEL_SERVICE_NAME="shop") as pid:
        began = start_time(pid)
        counters = Counters()
        table = ProcessTable(counters)
        result = as_nobody(lambda: (table.resource(pid, began, 1, b"sleep"), unresolved(counters)))
    resource, reasons = result
    assert resource["service.name"] == "sleep"
    assert "process.executable.path" not in resource
    assert reasons == {"denied": 1}


def as_nobody(action: Callable[[], tuple[Resource, dict[str, int]]]) -> tuple[Resource, dict[str, int]]:
    """The result of ``action`` in a child process without privileges."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setresuid(65534, 65534, 65534)
            os.write(writer, json.dumps(action()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        resource, reasons = json.loads(pipe.read())
    os.waitpid(child, 0)
    return resource, reasons


def test_after_an_error_of_the_system_the_next_look_up_is_made_anew(caplog: pytest.LogCaptureFixture) -> None:
    counters = Counters()
    table = ProcessTable(counters)
    soft, hard = limits.getrlimit(limits.RLIMIT_NOFILE)
    with running(["/bin/sleep", "60"], OTEL_SERVICE_NAME="shop") as pid:
        began = start_time(pid)
        limits.setrlimit(limits.RLIMIT_NOFILE, (3, hard))
        try:
            without_descriptors = table.resource(pid, began, 1, b"sleep")
        finally:
            limits.setrlimit(limits.RLIMIT_NOFILE, (soft, hard))
        assert table.resource(pid, began, 1, b"sleep")["service.name"] == "shop"
    assert without_descriptors["service.name"] == "sleep"
    assert unresolved(counters) == {"error": 1}
    assert "Too many open files" in str(vars(caplog.records[-1])["error"])


def test_a_huge_environment_is_read_up_to_a_bound() -> None:
    # Within 128 KiB for one string, and before the bound.
    filler = {f"FILLER_{i}": "x" * 100_000 for i in range(4)}
    with running(["/bin/sleep", "60"], OTEL_SERVICE_NAME="shop", **filler) as pid:
        assert look_up(pid)["service.name"] == "shop"
    with running(["/bin/sleep", "60"], **filler, OTEL_SERVICE_NAME="shop") as pid:
        assert look_up(pid)["service.name"] == "sleep"


def test_a_command_line_beyond_the_bound_names_no_cut_script(tmp_path: Path) -> None:
    script = tmp_path / "application.py"
    script.write_text(WAIT)
    words = [sys.executable, "-X", "", str(script)]
    words[2] = "x" * (COMMAND_LINE_LIMIT + len("cation.py") - len("\0".join(words)))
    with running(words) as pid:
        assert look_up(pid)["service.name"] == os.path.basename(os.readlink(f"/proc/{pid}/exe"))


def test_ignored_declarations_are_counted() -> None:
    counters = Counters()
    with running(["/bin/sleep", "60"], OTEL_RESOURCE_ATTRIBUTES="nonsense,a=1") as pid:
        assert look_up(pid, ProcessTable(counters))["a"] == "1"
    assert counters.snapshot()["wirespan.processes.declarations_ignored", ()] == 1


# ---- control groups -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hierarchy", ["/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"])
@pytest.mark.parametrize(
    ("path", "attribute", "value"),
    [
        (f"kubepods/burstable/pod{uuid.UUID(int=1)}/{ID}", "container.id", ID),
        (f"kubepods/burstable/pod{uuid.UUID(int=1)}/{ID}", "k8s.pod.uid", str(uuid.UUID(int=1))),
        (
            f"kubepods.slice/kubepods-pod{str(uuid.UUID(int=1)).replace('-', '_')}.slice",
            "k8s.pod.uid",
            str(uuid.UUID(int=1)),
        ),
        (f"kubepods.slice/kubepods-besteffort.slice/cri-containerd-{ID}.scope", "container.id", ID),
        ("system.slice/system-shop.slice/wirespan-shop@15-main.service", "service.name", "wirespan-shop"),
    ],
)
def test_the_control_group_of_a_real_process_tells(hierarchy: str, path: str, attribute: str, value: str) -> None:
    availability.need_root()
    root = Path(hierarchy)
    if not (root / "cgroup.procs").exists():
        availability.unavailable(f"no cgroup hierarchy is mounted at {root}", obtainable=False)
    with running(["/bin/sleep", "60"]) as pid, moved_into(root, path, pid):
        assert look_up(pid)[attribute] == value


@pytest.mark.parametrize(
    ("declared", "inferred"),
    [
        ({}, ("service.name", "service.instance.id")),
        ({"OTEL_SERVICE_NAME": "shop"}, ("service.instance.id",)),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=shop,service.instance.id=1"}, None),
    ],
)
def test_a_process_in_a_pod_says_what_it_has_not_declared(
    declared: dict[str, str], inferred: tuple[str, ...] | None
) -> None:
    availability.need_root()
    root = Path("/sys/fs/cgroup/systemd")
    if not (root / "cgroup.procs").exists():
        root = Path("/sys/fs/cgroup")
    with running(["/bin/sleep", "60"], **declared) as pid:
        assert "wirespan.resource.inferred" not in look_up(pid)
        with moved_into(root, f"kubepods/pod{uuid.UUID(int=2)}/{ID}", pid):
            assert look_up(pid).get("wirespan.resource.inferred") == inferred


@contextmanager
def moved_into(root: Path, path: str, pid: int) -> Iterator[None]:
    """A process in a control group of its own; what was made for it is removed after the block."""
    folders = [root / parent for parent in (*reversed(Path(path).parents), Path(path)) if not (root / parent).exists()]
    try:
        for folder in folders:
            folder.mkdir()
        (root / path / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        (root / "cgroup.procs").write_text(str(pid))
        for folder in reversed(folders):
            folder.rmdir()
