"""The kernel computes the ids of the vectors, so both ends of an exchange decide alike whether it is sampled."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path

import numpy as np
import pytest

from support.compiling import compile_bpf
from wirespan.receiver.kernel.libbpf import BpfObject

pytestmark = pytest.mark.requires_bpf

HERE = Path(__file__).parent
VECTORS = json.loads((HERE.parent / "vectors" / "siphash.json").read_text())["exchanges"]


def packed(address: str) -> bytes:
    """16 bytes, IPv4 as ::ffff:a.b.c.d."""
    parsed = ipaddress.ip_address(address)
    return parsed.packed if parsed.version == 6 else bytes(10) + b"\xff\xff" + parsed.packed


def test_the_kernel_gives_the_low_56_bits_of_the_trace_ids_of_the_vectors(tmp_path: Path) -> None:
    with BpfObject.open(compile_bpf(HERE / "siphash.bpf.c", tmp_path)) as program:
        program.load()
        for vector in VECTORS:
            program.set_variable("key", np.frombuffer(bytes.fromhex(vector["key"]), "<u8"))
            program.set_variable("client_address", np.frombuffer(packed(vector["client_address"]), "<u8"))
            for name in ("client_port", "sequence", "netns"):
                program.set_variable(name, vector[name])
            for name in ("position", "boot_id"):
                program.set_variable(name, int(vector[name], 16))
            program.programs["trace_id"].run()
            assert f"{int(program.variable('low56')):014x}" == vector["trace_id"][-14:], vector
