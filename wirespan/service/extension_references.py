"""Where a component's configuration names extensions: the values of fields that are marked by ``ExtensionOf``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel

from ..pipeline.component import ExtensionOf
from .document import TreePath


class Reference(NamedTuple):
    path: TreePath
    id: str
    wanted: ExtensionOf


def extension_references(value: Any, path: TreePath = ()) -> Iterator[Reference]:
    """All in a configuration and in what it is made of."""
    if isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            here, nested = (*path, field.alias or name), getattr(value, name)
            wanted = next(_markers(field.rebuild_annotation()), None)
            if wanted is None:
                yield from extension_references(nested, here)
            elif isinstance(nested, str):
                yield Reference(here, nested, wanted)
    elif isinstance(value, Mapping):
        for key, nested in value.items():
            yield from extension_references(nested, (*path, key))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for index, nested in enumerate(value):
            yield from extension_references(nested, (*path, index))


def _markers(annotation: Any) -> Iterator[ExtensionOf]:
    for argument in get_args(annotation):
        if isinstance(argument, ExtensionOf):
            yield argument
        yield from _markers(argument)
