"""dtypes from BTF, against what the C compiler of this machine says about the same structs."""

from __future__ import annotations

import ctypes
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

from support.availability import need_command, unavailable
from support.compiling import clang_major, compile_bpf
from wirespan.receiver.kernel.btf import Btf, BtfError, shortened
from wirespan.receiver.kernel.libbpf import BpfObject

#: the first clang whose BTF says that an enum has a sign, and that has a kind for wide ones
SAYS_SIGN = 16

STRUCTS = {
    "integers": "s8 u8 s16 u16 s32 u32 s64 u64 letter flag single twice",
    "padded": "first second third fourth last",
    "nested": "before one several text matrix constant colour offset wide",
    "packed_tight": "first second third",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The BTF section of layouts.c, as an ELF reader would find it."""
    compiled = compile_bpf(Path(__file__).with_name("layouts.c"), tmp_path_factory.mktemp("btf"))
    objcopy = [need_command("objcopy"), "-I", "elf64-little", "--dump-section"]
    section = compiled.with_suffix(".btf")
    subprocess.run([*objcopy, f".BTF={section}", compiled, compiled.with_suffix(".copy")], check=True)
    return section.read_bytes()


@pytest.fixture(scope="module")
def btf(data: bytes) -> Btf:
    return Btf(data)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """sizeof and offsetof of every struct and member, as functions compiled for this machine."""
    folder = tmp_path_factory.mktemp("host")
    lines = ["#include <stddef.h>", f'#include "{Path(__file__).with_name("layouts.h")}"']
    for name, members in STRUCTS.items():
        lines.append(f"unsigned long {name}_size(void) {{ return sizeof(struct {name}); }}")
        for member in members.split():
            of_member = f"sizeof(((struct {name} *)0)->{member})"
            lines.append(f"unsigned long {name}_{member}(void) {{ return offsetof(struct {name}, {member}); }}")
            lines.append(f"unsigned long {name}_{member}_size(void) {{ return {of_member}; }}")
    source, library = folder / "host.c", folder / "host.so"
    source.write_text("\n".join(lines))
    subprocess.run([need_command("cc"), "-shared", "-fPIC", source, "-o", library], check=True)
    return ctypes.CDLL(str(library))


@pytest.mark.parametrize("name", STRUCTS)
def test_a_struct_has_the_offsets_and_sizes_that_c_gives_it(btf: Btf, host: ctypes.CDLL, name: str) -> None:
    dtype = btf.dtype(name)
    assert dtype.names == tuple(STRUCTS[name].split())
    assert dtype.itemsize == host[f"{name}_size"]()
    assert dtype.fields is not None
    for member in dtype.names:
        field, offset = dtype.fields[member][:2]
        assert (offset, field.itemsize) == (host[f"{name}_{member}"](), host[f"{name}_{member}_size"]()), member


def test_integers_keep_their_size_and_sign(btf: Btf) -> None:
    formats = [btf.dtype("integers")[i].str for i in range(12)]
    assert formats == ["|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "|i1", "|b1", "<f4", "<f8"]


def test_arrays_enums_and_structs_nest(btf: Btf) -> None:
    dtype = btf.dtype("nested")
    assert dtype["text"] == np.dtype(("u1", (17,)))
    assert dtype["matrix"] == np.dtype(("<i2", (2, 5)))
    assert dtype["several"].shape == (3,)
    assert dtype["several"].base == dtype["one"] == dtype["constant"]
    offset = "<i4" if clang_major() >= SAYS_SIGN else "<u4"
    assert [dtype[name].str for name in ("colour", "offset", "wide")] == ["<u4", offset, "<u8"]


def test_enums_give_names_to_values_of_both_signs_and_widths(btf: Btf) -> None:
    assert btf.enum("colour") == {"RED": 1, "GREEN": 2, "BLUE": 1000}
    if clang_major() < SAYS_SIGN:
        unavailable(f"clang before {SAYS_SIGN} writes neither into BTF", obtainable=False)
    assert btf.enum("offset") == {"BEFORE": -1, "AFTER": 1}
    assert btf.enum("wide") == {"NARROW": 3, "WIDE": 0x123456789ABCDEF}
    assert btf.enum("wide_offset") == {"FAR_BEFORE": -0x123456789AB, "NEAR": 0}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("with_union", "struct with_union.value is a union"),
        ("with_bits", "struct with_bits.low is a bit field"),
        ("with_pointer", "struct with_pointer.to is a pointer"),
        ("with_unnamed", "struct with_unnamed has an unnamed member"),
        ("with_128_bits", "struct with_128_bits.number is a number of 16 bytes"),
        ("absent", "no struct absent"),
        ("colour", "no struct colour"),
    ],
)
def test_what_has_no_dtype_is_refused_by_name(btf: Btf, name: str, said: str) -> None:
    with pytest.raises(BtfError, match=said):
        btf.dtype(name)


def test_an_enum_that_is_not_there_is_an_error(btf: Btf) -> None:
    with pytest.raises(BtfError, match="no enum padded"):
        btf.enum("padded")


def test_variables_are_found_in_their_sections(tmp_path: Path) -> None:
    # libbpf fills in the offsets, which a compiler leaves to the linker.
    with BpfObject.open(compile_bpf(Path(__file__).with_name("layouts.c"), tmp_path)) as opened:
        variables = opened.btf.variables()
        assert {name: variables[name].section for name in ("limit", "key", "counted", "started")} == {
            "limit": ".rodata",
            "key": ".rodata",
            "counted": ".bss",
            "started": ".data",
        }
        assert variables["key"].dtype == np.dtype(("u1", (2,)))
        assert "with_pointer_layout" not in variables
        assert opened.variable("limit") == 5
        assert opened.variable("key").tolist() == [1, 2]
        opened.set_variable("key", [3, 4])
        assert opened.variable("key").tolist() == [3, 4]
        with pytest.raises(OverflowError):
            opened.set_variable("key", [256, 0])


def test_a_record_can_be_cut_in_its_last_array() -> None:
    whole = np.dtype({"names": ["a", "b"], "formats": ["u1", ("<u2", (8,))], "offsets": [3, 8], "itemsize": 32})
    cut = shortened(whole, 3)
    assert (cut.itemsize, cut["b"].shape, cut.fields["a"][1]) == (14, (3,), 3)
    for count in (0, 9):
        with pytest.raises(BtfError, match="b is not an array"):
            shortened(whole, count)


def test_every_truncation_is_an_error_or_the_same_types(data: bytes, btf: Btf) -> None:
    for length in range(0, len(data), 7):
        with pytest.raises(BtfError):
            Btf(data[:length])


def test_damage_anywhere_raises_nothing_but_btf_errors(data: bytes) -> None:
    random = np.random.default_rng(1)
    for _ in range(300):
        damaged = bytearray(data)
        for at in random.integers(0, len(data), 3):
            damaged[at] = random.integers(0, 256)
        try:
            found = Btf(bytes(damaged))
            found.variables()
            for name in STRUCTS:
                found.dtype(name)
        except BtfError:
            continue


def test_another_byte_order_is_refused() -> None:
    with pytest.raises(BtfError, match="byte order"):
        Btf(struct.pack(">HBBIIIII", 0xEB9F, 1, 0, 24, 0, 0, 0, 0))
