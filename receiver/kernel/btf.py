"""BTF, the type description that a compiled BPF object carries, read as numpy dtypes.

The structs that travel between kernel and user space are written down once, in C. From the object's BTF this module
derives the same layout for numpy, so the two cannot drift. Only what has one obvious dtype is accepted: integers,
enums, floats, structs and arrays of them; unions, bit fields, pointers and unnamed members are refused by name.

The format is in Documentation/bpf/btf.rst of the kernel: a header, a table of types numbered from 1 (0 is void),
each 12 bytes and what its kind adds, and a table of strings.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np

MAGIC = 0xEB9F
_HEADER = struct.Struct("=HBBIIIII")
_TYPE = struct.Struct("=III")
#: MAX_RESOLVE_DEPTH of the kernel's own BTF check
_MAX_DEPTH = 32


class Kind(IntEnum):
    """BTF_KIND_*."""

    INT = 1
    POINTER = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FORWARD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNCTION = 12
    FUNCTION_PROTOTYPE = 13
    VARIABLE = 14
    SECTION = 15
    FLOAT = 16
    DECLARATION_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


_TRANSPARENT = {Kind.TYPEDEF, Kind.VOLATILE, Kind.CONST, Kind.RESTRICT, Kind.TYPE_TAG}

_UINT32 = struct.Struct("=I")
_ARRAY = struct.Struct("=III")
_MEMBER = struct.Struct("=III")
_NOTHING = struct.Struct("=")

#: what follows a type of the kind: a struct, and whether there is one for each of its members
_TRAILER: dict[Kind, tuple[struct.Struct, bool]] = {
    Kind.INT: (_UINT32, False),
    Kind.ARRAY: (_ARRAY, False),
    Kind.STRUCT: (_MEMBER, True),
    Kind.UNION: (_MEMBER, True),
    Kind.ENUM: (struct.Struct("=Ii"), True),
    Kind.FUNCTION_PROTOTYPE: (struct.Struct("=II"), True),
    Kind.VARIABLE: (_UINT32, False),
    Kind.SECTION: (_MEMBER, True),
    Kind.DECLARATION_TAG: (_UINT32, False),
    Kind.ENUM64: (struct.Struct("=III"), True),
}

_SCALAR_SIZES = {"i": (1, 2, 4, 8), "u": (1, 2, 4, 8), "f": (4, 8)}

_DATA_SECTIONS = (".rodata", ".data", ".bss")

_INT_SIGNED = 1
_INT_BOOL = 4


class BtfError(Exception):
    """The BTF is damaged, has no such type, or a type that has no numpy dtype."""


@dataclass(frozen=True, slots=True)
class Type:
    """One type. size_or_type: bytes, or the number of the type it refers to, as its kind has it. flag: kind_flag.
    parts: the words behind it, by member."""

    kind: Kind
    name: str
    size_or_type: int
    flag: bool
    parts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """A global variable: its section (``.rodata``, ``.data``, ``.bss``), its offset there in bytes, its dtype."""

    section: str
    offset: int
    dtype: np.dtype[Any]


class Btf:
    """The types of one object. data: its BTF section, in this machine's byte order."""

    def __init__(self, data: bytes) -> None:
        types, self._strings = _sections(data)
        self._types = [Type(Kind.FORWARD, "void", 0, False, ()), *self._read(types)]

    def _read(self, data: bytes) -> Iterator[Type]:
        at = 0
        try:
            while at < len(data):
                name, info, size_or_type = _TYPE.unpack_from(data, at)
                at += _TYPE.size
                kind = Kind(info >> 24 & 0x1F)
                trailer, per_member = _TRAILER.get(kind, (_NOTHING, False))
                count = info & 0xFFFF if per_member else 1
                parts = tuple(trailer.unpack_from(data, at + i * trailer.size) for i in range(count))
                at += count * trailer.size
                yield Type(kind, self._string(name), size_or_type, bool(info >> 31), parts)
        except (struct.error, ValueError) as error:
            raise BtfError(f"damaged BTF: type section, byte {at}: {error}") from error

    def _string(self, offset: int) -> str:
        end = self._strings.find(b"\0", offset)
        if end < 0:
            raise BtfError(f"damaged BTF: no string at {offset}")
        return self._strings[offset:end].decode(errors="replace")

    def _type(self, number: int) -> Type:
        """The type of this number, behind its typedefs and qualifiers."""
        for _ in range(_MAX_DEPTH):
            if number >= len(self._types):
                raise BtfError(f"damaged BTF: type {number} of {len(self._types)}")
            found = self._types[number]
            if found.kind not in _TRANSPARENT:
                return found
            number = found.size_or_type
        raise BtfError(f"damaged BTF: type {number} is nested more than {_MAX_DEPTH} deep")

    def _named(self, name: str, *kinds: Kind) -> Type | None:
        return next((t for t in self._types if t.name == name and t.kind in kinds), None)

    def dtype(self, name: str) -> np.dtype[np.void]:
        """The dtype of ``struct name``: same offsets, padding and size. BtfError if there is none."""
        found = self._named(name, Kind.STRUCT)
        if found is None:
            raise BtfError(f"no struct {name} in the BTF; is a variable of that type declared in the C source?")
        return self._struct(found, f"struct {name}", 0)

    def enum(self, name: str) -> dict[str, int]:
        """The values of ``enum name`` by their names. BtfError if there is none."""
        found = self._named(name, Kind.ENUM, Kind.ENUM64)
        if found is None:
            raise BtfError(f"no enum {name} in the BTF; is a variable of that type declared in the C source?")
        return {self._string(part[0]): _enumerator(found, part) for part in found.parts}

    def variables(self) -> dict[str, Variable]:
        """The global variables that have a dtype, by name, from all data sections."""
        found: dict[str, Variable] = {}
        for section in self._types:
            if section.kind is not Kind.SECTION or not section.name.startswith(_DATA_SECTIONS):
                continue
            for number, offset, _size in section.parts:
                variable = self._type(number)
                if variable.kind is not Kind.VARIABLE:
                    raise BtfError(f"damaged BTF: {variable.name} in section {section.name} is no variable")
                try:
                    dtype = self._dtype(variable.size_or_type, variable.name, 0)
                except BtfError:
                    continue  # a pointer or a union cannot be set or read from user space
                found[variable.name] = Variable(section.name, offset, dtype)
        return found

    def _dtype(self, number: int, path: str, depth: int) -> np.dtype[Any]:
        if depth > _MAX_DEPTH:
            raise BtfError(f"damaged BTF: {path} is nested more than {_MAX_DEPTH} deep")
        found = self._type(number)
        match found.kind:
            case Kind.INT:
                return _integer(found, path)
            case Kind.ENUM | Kind.ENUM64:
                return _scalar("i" if found.flag else "u", found.size_or_type, path)
            case Kind.FLOAT:
                return _scalar("f", found.size_or_type, path)
            case Kind.ARRAY:
                number, _index, count = found.parts[0]
                element = self._dtype(number, f"{path}[]", depth + 1)
                return _checked((element.base, (count, *element.shape)), path)
            case Kind.STRUCT:
                return self._struct(found, path, depth)
        raise BtfError(f"{path} is a {found.kind.name.lower()}, which has no numpy dtype")

    def _struct(self, found: Type, path: str, depth: int) -> np.dtype[np.void]:
        names: list[str] = []
        formats: list[np.dtype[Any]] = []
        offsets: list[int] = []
        for name_offset, number, position in found.parts:
            name = self._string(name_offset)
            if not name:
                raise BtfError(f"{path} has an unnamed member, which has no numpy field")
            # with kind_flag: bit field size in the upper 8 bits, and the offset in the lower 24
            size, bit = (position >> 24, position & 0xFFFFFF) if found.flag else (0, position)
            if size or bit % 8:
                raise BtfError(f"{path}.{name} is a bit field, which has no numpy dtype")
            names.append(name)
            formats.append(self._dtype(number, f"{path}.{name}", depth + 1))
            offsets.append(bit // 8)
        layout = {"names": names, "formats": formats, "offsets": offsets, "itemsize": found.size_or_type}
        return _checked(layout, path)


def shortened(dtype: np.dtype[np.void], count: int) -> np.dtype[np.void]:
    """The dtype of records that are cut inside their last field, an array, of which ``count`` elements remain."""
    if not dtype.names or dtype.fields is None:
        raise BtfError(f"{dtype} is no struct")
    last = dtype.names[-1]
    array, offset = dtype.fields[last][:2]
    if len(array.shape) != 1 or not 0 < count <= array.shape[0]:
        raise BtfError(f"{last} is not an array of {count} elements or more")
    formats = [dtype.fields[name][0] for name in dtype.names[:-1]] + [np.dtype((array.base, (count,)))]
    offsets = [dtype.fields[name][1] for name in dtype.names]
    itemsize = offset + count * array.base.itemsize
    return np.dtype({"names": list(dtype.names), "formats": formats, "offsets": offsets, "itemsize": itemsize})


def _sections(data: bytes) -> tuple[bytes, bytes]:
    """The type and the string section."""
    if len(data) < _HEADER.size:
        raise BtfError(f"damaged BTF: {len(data)} bytes")
    magic, version, _flags, header, type_offset, type_size, string_offset, string_size = _HEADER.unpack_from(data)
    if magic != MAGIC or version != 1:
        raise BtfError(f"not BTF of this machine's byte order: magic {magic:#x}, version {version}")
    if header + max(type_offset + type_size, string_offset + string_size) > len(data):
        raise BtfError(f"damaged BTF: sections end behind its {len(data)} bytes")
    types, strings = header + type_offset, header + string_offset
    return data[types : types + type_size], data[strings : strings + string_size]


def _integer(found: Type, path: str) -> np.dtype[Any]:
    encoding, offset, bits = found.parts[0][0] >> 24, found.parts[0][0] >> 16 & 0xFF, found.parts[0][0] & 0xFF
    size = found.size_or_type
    if offset or bits != size * 8:
        raise BtfError(f"{path} is an integer of {bits} bits in {size} bytes, which has no numpy dtype")
    if encoding & _INT_BOOL and size == 1:
        return np.dtype(np.bool_)
    return _scalar("i" if encoding & _INT_SIGNED else "u", size, path)


def _scalar(letter: str, size: int, path: str) -> np.dtype[Any]:
    if size not in _SCALAR_SIZES[letter]:
        raise BtfError(f"{path} is a number of {size} bytes, which has no numpy dtype")
    return np.dtype(f"{letter}{size}")


def _checked(layout: Any, path: str) -> np.dtype[Any]:
    """The dtype; what numpy refuses (a member behind the end of its struct) no compiler wrote."""
    try:
        dtype: np.dtype[Any] = np.dtype(layout)
    except ValueError as error:
        raise BtfError(f"damaged BTF: {path}: {error}") from error
    return dtype


def _enumerator(found: Type, part: tuple[int, ...]) -> int:
    """Values lie in two's complement; kind_flag says whether they are signed (of 32 bits, since clang 15)."""
    if found.kind is Kind.ENUM:
        return part[1] if found.flag else part[1] & 0xFFFFFFFF
    value = part[1] | part[2] << 32
    return value - (1 << 64) if found.flag and value >> 63 else value
