"""The shared object of this folder through ctypes: prototypes, structures, and arrays as arguments.

Structures of C are written down a second time here or where they are filled; loading refuses to go on if a size differs.
Calls release the interpreter's lock, so other threads run meanwhile; nobody else may change the arrays that a call has.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from ctypes import POINTER, Structure, c_char_p, c_int64, c_uint64, c_void_p
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .sources import of_library

#: with a version behind it: Python takes every *.so of a package for an extension module
NAME: Final = "libwirespan.so.1"


class NativeError(Exception):
    """The shared object is missing or of other sources. The message says what to do."""


class Generation(Structure):
    _fields_ = (("keys", c_void_p), ("values", c_void_p))


class KeyTableStruct(Structure):
    """struct key_table of key_table.h."""

    _fields_ = (
        ("young", Generation),
        ("old", Generation),
        ("limit", c_uint64),
        ("count", c_uint64),
        ("slot_bits", c_uint64),
    )


class RecordsStruct(Structure):
    """struct records of exchanges.h."""

    _fields_ = (("first", c_void_p), ("stride", c_uint64), ("size", c_uint64), ("count", c_uint64))


class HeadRules(Structure):
    """struct head_rules of heads.c."""

    _fields_ = (
        ("key", c_void_p),
        ("containers", c_void_p),
        ("container_count", c_uint64),
        ("origins", c_void_p),
        ("origin_ends", c_void_p),
        ("ask_all", c_uint64),
        ("whole_http", c_uint64),
        ("whole_redis", c_uint64),
    )


class HeadColumns(Structure):
    """struct head_columns of heads.c."""

    _fields_ = (
        ("keys", c_void_p),
        ("meanings", c_void_p),
        ("texts", c_void_p),
        ("text_begins", c_void_p),
        ("text_lengths", c_void_p),
        ("contexts", c_void_p),
        ("trace_ids", c_void_p),
        ("parents", c_void_p),
        ("told", c_void_p),
        ("flagged", c_uint64),
        ("invalid", c_uint64),
        ("cut", c_uint64),
    )


class ExchangeColumns(Structure):
    """struct columns of columns.c."""

    _fields_ = (
        ("server_side", c_void_p),
        ("peer_observed", c_void_p),
        ("began", c_void_p),
        ("duration", c_void_p),
        ("remarks", c_void_p),
        ("numbers", c_void_p),
        ("parts", c_void_p),
    )


class Strings(Structure):
    """struct strings of otlp.h."""

    _fields_ = (("data", c_void_p), ("ends", c_void_p), ("count", c_uint64))


class Column(Structure):
    """struct column of otlp.h."""

    _fields_ = (
        ("values", c_void_p),
        ("prefix", c_void_p),
        ("prefix_size", c_uint64),
        ("lengths", c_void_p),
        ("strings", Strings),
        ("kind", c_uint64),
        ("width", c_uint64),
    )


class SpanStart(Structure):
    """struct span_start of otlp.h."""

    _fields_ = (
        ("bytes", c_void_p),
        ("size", c_uint64),
        ("trace_id", c_uint64),
        ("span_id", c_uint64),
        ("kind", c_uint64),
        ("start", c_uint64),
        ("end", c_uint64),
    )


class Spans(Structure):
    """struct spans of otlp.h."""

    _fields_ = (
        ("count", c_uint64),
        ("order", c_void_p),
        ("trace_id", c_void_p),
        ("span_id", c_void_p),
        ("kind", c_void_p),
        ("start", c_void_p),
        ("end", c_void_p),
        ("resource", c_void_p),
        ("resources", Strings),
        ("fixed", SpanStart),
        ("columns", POINTER(Column)),
        ("column_count", c_uint64),
        ("envelope", Strings),
        ("sizes", c_void_p),
    )


class Durations(Structure):
    """struct durations of durations.c."""

    _fields_ = (
        ("count", c_uint64),
        ("cells", c_void_p),
        ("start", c_void_p),
        ("end", c_void_p),
        ("trace_ids", c_void_p),
        ("span_ids", c_void_p),
    )


class Exemplar(Structure):
    """struct exemplar of durations.c."""

    _fields_ = (("trace_id", c_uint64 * 2), ("span_id", c_uint64), ("time", c_uint64), ("duration", c_uint64))


class DurationTableStruct(Structure):
    """struct duration_table of durations.c."""

    _fields_ = (
        ("bounds", c_void_p),
        ("bound_count", c_uint64),
        ("counts", c_void_p),
        ("sums", c_void_p),
        ("exemplars", c_void_p),
    )


#: result and arguments of each function
_PROTOTYPES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "key_table_find": (c_uint64, (POINTER(KeyTableStruct), c_void_p, c_uint64, c_uint64, c_void_p)),
    "key_table_add": (None, (POINTER(KeyTableStruct), c_void_p, c_void_p, c_uint64)),
    "key_table_clear": (None, (POINTER(KeyTableStruct),)),
    "otlp_items": (c_int64, (c_uint64, c_char_p, c_uint64)),
    "exchange_ids": (None, (POINTER(RecordsStruct), c_void_p, c_uint64, c_void_p, c_void_p, c_void_p)),
    "connection_keys": (None, (POINTER(RecordsStruct), c_void_p, c_void_p)),
    "process_keys": (None, (POINTER(RecordsStruct), c_void_p, c_void_p)),
    "exchange_columns": (c_uint64, (POINTER(RecordsStruct), POINTER(ExchangeColumns))),
    "record_layout": (None, (c_void_p,)),
    "sources": (c_uint64, ()),
    "head_keys": (c_uint64, (POINTER(RecordsStruct), POINTER(HeadRules), c_void_p, POINTER(HeadColumns))),
    "series_keys": (None, (POINTER(RecordsStruct), c_void_p, c_void_p, c_void_p, c_void_p)),
    "durations_add": (None, (POINTER(Durations), c_void_p, c_void_p, POINTER(DurationTableStruct))),
    "match_routes": (None, (c_void_p, c_void_p, c_void_p, c_uint64, c_void_p, c_void_p, c_uint64, c_void_p)),
    "spans_measure": (c_uint64, (POINTER(Spans),)),
    "request_end": (c_uint64, (POINTER(Spans), c_uint64, c_uint64, POINTER(c_uint64))),
    "request_write": (c_uint64, (POINTER(Spans), c_uint64, c_uint64, c_void_p)),
}

#: the function that gives the size of each structure in C
_SIZES: dict[str, type[Structure]] = {
    "key_table_size": KeyTableStruct,
    "records_size": RecordsStruct,
    "head_rules_size": HeadRules,
    "head_columns_size": HeadColumns,
    "columns_size": ExchangeColumns,
    "column_size": Column,
    "spans_size": Spans,
    "durations_size": Durations,
    "exemplar_size": Exemplar,
    "duration_table_size": DurationTableStruct,
}


#: what C reads of a record, in the order of record_layout in columns.c
_RECORD_FIELDS: Final = (
    "connection.cookie",
    "connection.local_address",
    "connection.remote_address",
    "connection.local_port",
    "connection.remote_port",
    "connection.sequence",
    "connection.netns",
    "connection.role",
    "connection.flags",
    "connection.transport",
    "process.start_time",
    "process.tgid",
    "process.exec_id",
    "process.comm",
    "position",
    "arrived",
    "request_start",
    "request_end",
    "response_start",
    "response_end",
    "request_size",
    "response_size",
    "request_captured",
    "response_captured",
    "outcome",
    "flags",
    "protocol",
    "response_head",
    "request_head",
)


@cache
def library() -> ctypes.CDLL:
    """The shared object. NativeError if it is missing or of other sources than those beside it."""
    path = Path(str(files(__package__))) / NAME
    loaded = load(path)
    if of_library() not in (None, loaded.sources()):
        raise NativeError(f"{path} was compiled from other sources; run make setup")
    return loaded


def load(path: Path) -> ctypes.CDLL:
    """A shared object of these sources at this path."""
    try:
        loaded = ctypes.CDLL(str(path))
        for name, (result, arguments) in _PROTOTYPES.items():
            function = getattr(loaded, name)
            function.restype, function.argtypes = result, arguments
        for name, structure in _SIZES.items():
            size = getattr(loaded, name)
            size.restype = c_uint64
            if size() != ctypes.sizeof(structure):
                raise NativeError(f"{path} was compiled from other sources; run make setup")
    except (OSError, AttributeError) as error:
        raise NativeError(f"cannot load {path}: {error}; run make setup") from error
    return loaded


def address(array: npt.NDArray[Any]) -> int:
    """Where a contiguous array's elements are. The caller keeps the array until the call is over."""
    return array.ctypes.data


def addresses(*arrays: npt.NDArray[Any]) -> tuple[int, ...]:
    """The same of several."""
    return tuple(array.ctypes.data for array in arrays)


# The C API allows who made a bytes object without contents to fill it, before anyone else has it: a request of megabytes
# is written once, and not copied into memory that the kernel has to clear first.
_new_bytes = ctypes.pythonapi.PyBytes_FromStringAndSize
_new_bytes.restype, _new_bytes.argtypes = ctypes.py_object, (c_void_p, ctypes.c_ssize_t)
_bytes_address = ctypes.pythonapi.PyBytes_AsString
_bytes_address.restype, _bytes_address.argtypes = c_void_p, (ctypes.py_object,)


def new_bytes(size: int, fill: Callable[[int], object]) -> bytes:
    """Bytes of this size, all of which ``fill`` writes at the address that it gets."""
    created: bytes = _new_bytes(None, size)
    fill(_bytes_address(created))
    return created


def records_of(array: npt.NDArray[np.void]) -> RecordsStruct:
    """Records of the kernel as an argument; ``array``, (n,), is kept by the caller."""
    return RecordsStruct(address(array), array.strides[0], array.itemsize, len(array))


def check_records(dtype: np.dtype[np.void]) -> None:
    """NativeError unless the shared object was compiled from the record.h that gave this dtype."""
    offsets = np.empty(len(_RECORD_FIELDS) + 1, np.uint64)
    library().record_layout(address(offsets))
    if offsets.tolist() != [dtype.itemsize, *(_offset(dtype, name.split(".")) for name in _RECORD_FIELDS)]:
        raise NativeError(f"{NAME} was compiled for other records than the BPF programs write; run make setup")


def _offset(dtype: np.dtype[Any], path: list[str]) -> int:
    fields: Mapping[str, Any] = dtype.fields or {}
    if path[0] not in fields:
        raise NativeError(f"the BPF programs' records have no {path[0]}; run make setup")
    inner, offset = fields[path[0]][:2]
    return int(offset) + (_offset(inner, path[1:]) if path[1:] else 0)
