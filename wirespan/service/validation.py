"""pydantic's errors → problems in the words of the person who wrote the file.

pydantic knows models, not files: it names a place by keys and indices. Here such a place is looked up in the
:class:`~wirespan.service.document.Document` for its line, an unknown key gets the nearest valid one, and each type
of error gets a sentence that says what the value is and what it should be.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator
from copy import deepcopy
from itertools import takewhile
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from .document import Document, Problem, TreePath

Model = TypeVar("Model", bound=BaseModel)

#: Values under such keys are not repeated: an error message ends up in logs and in bug reports.
_FILE = re.compile("(^|_)file(name)?$")
_SECTIONS = (("receivers",), ("processors",), ("exporters",), ("extensions",))
_SECRET = re.compile("header|passw(or)?d|secret|token|credential|authorization|(^|_)key(_pem)?$", re.IGNORECASE)
_LONGEST_VALUE = 60

#: What a value is not, by the start of pydantic's type of error (docs.pydantic.dev/latest/errors/validation_errors).
_SHOULD_BE = {
    "int_": "a whole number",
    "float_": "a number",
    "finite_number": "a finite number",
    "decimal_": "a number",
    "bool_": "true or false",
    "string_type": "text; write it in quotes",
    "list_": "a list",
    "tuple_": "a list",
    "set_": "a list",
    "frozen_set_": "a list",
    "dict_": "a mapping",
    "mapping_": "a mapping",
    "model_": "a mapping",
}
_LIMITS = {
    "greater_than_equal": "at least {ge:g}",
    "greater_than": "more than {gt:g}",
    "less_than_equal": "at most {le:g}",
    "less_than": "less than {lt:g}",
    "too_short": "at least {min_length} long",
    "too_long": "at most {max_length} long",
    "string_too_short": "at least {min_length} characters long",
    "string_too_long": "at most {max_length} characters long",
}
#: How a component's own words begin if the value is to stand before them.
_OF_A_VALUE = ("is not ", "must be ")


def validate(model: type[Model], document: Document, path: TreePath, tree: Any) -> Model | list[Problem]:
    """``tree``, which stands at ``path`` of the document, as a model, or what is wrong with it. None means empty."""
    try:
        return model.model_validate({} if tree is None else tree)
    except ValidationError as error:
        problems = [_problem(detail, model, document, path) for detail in error.errors(include_url=False)]
        return list(dict.fromkeys(problems))


def validate_parts(
    model: type[Model], document: Document, path: TreePath, tree: Any
) -> tuple[Model, list[Problem], list[TreePath]]:
    """What is right in ``tree`` as a model, what is wrong with the rest, and the paths that were left out for it.

    So a mistake hides none that only the whole shows. A misspelt key counts as the one that it is near to; the document then
    knows both. Of a list in which something is wrong nothing is kept: indices would change. Every field of the model has a
    default.
    """
    problems: list[Problem] = []
    left_out: list[TreePath] = []
    kept = {} if tree is None else deepcopy(tree)
    while True:
        try:
            return model.model_validate(kept), list(dict.fromkeys(problems)), left_out
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                problems.append(_problem(detail, model, document, path))
                keys = _keys_to(detail)
                if detail["type"] == "extra_forbidden" and _respell(kept, keys, model, document, path):
                    continue
                left_out.append(path + keys)
                if keys:
                    _mapping_of(kept, keys).pop(keys[-1], None)
                else:
                    kept = {}


def _keys_to(detail: ErrorDetails) -> tuple[str, ...]:
    """To what is wrong, or to the list that it is in. What is missing is wrong in what lacks it."""
    location = detail["loc"][:-1] if detail["type"] == "missing" else detail["loc"]
    keys = takewhile(lambda part: isinstance(part, str), location)
    return tuple(map(str, keys))


def _mapping_of(tree: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    """That in which the last key is; an empty one if it was left out before."""
    for key in keys[:-1]:
        tree = tree.get(key, {})
    return tree


def _respell(
    tree: dict[str, Any], keys: tuple[str, ...], model: type[BaseModel], document: Document, path: TreePath
) -> bool:
    """Give an unknown key the nearest valid name. Not if that is taken, or if the key is in a list."""
    *above, written = keys
    mapping = _mapping_of(tree, keys)
    near = _nearest(written, known_keys(model, tuple(above)))
    if near is None or near in mapping or written not in mapping:
        return False
    mapping[near] = mapping.pop(written)
    document.add_name((*path, *keys), (*path, *above, near))
    return True


def suggestion(name: str, valid: Iterable[str]) -> str:
    """``; did you mean "x"?``, or nothing if no valid name is near."""
    near = _nearest(name, valid)
    return f'; did you mean "{near}"?' if near else ""


def _nearest(name: str, valid: Iterable[str]) -> str | None:
    return next(iter(difflib.get_close_matches(name, list(valid), n=1)), None)


def known_keys(model: type[BaseModel], location: TreePath = ()) -> list[str]:
    """The keys that are valid at ``location`` below a model.

    Parts that are no field (list indices, keys of a mapping, pydantic's names for the members of a union) stay in
    the models at hand.
    """
    models = [model]
    for part in location:
        fields = [
            field for owner in models for name, field in owner.model_fields.items() if part in (name, field.alias)
        ]
        if fields:
            models = [nested for field in fields for nested in _models_in(field.annotation)]
    return sorted({field.alias or name for owner in models for name, field in owner.model_fields.items()})


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that a field's annotation mentions: of ``list[Target] | None``, Target."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _problem(detail: ErrorDetails, model: type[BaseModel], document: Document, path: TreePath) -> Problem:
    location: TreePath = detail["loc"]
    if detail["type"] == "extra_forbidden":
        valid = known_keys(model, location[:-1])
        hint = suggestion(str(location[-1]), valid) or f"; valid are {', '.join(valid) or 'none'}"
        return document.problem(path + location, f"unknown key{hint}")
    written = _written(document, path, location)
    if detail["type"] == "missing":
        return document.problem((*written, location[-1]), "is required")
    return document.problem(written, _sentence(detail, written))


def _written(document: Document, path: TreePath, location: TreePath) -> TreePath:
    """The path in the file of a pydantic location, which also names members of unions."""
    for part in location:
        if document.contains((*path, part)):
            path = (*path, part)
    return path


def _sentence(detail: ErrorDetails, path: TreePath) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    value = value_text(detail["input"], path)
    if kind in ("value_error", "assertion_error"):
        words = str(context["error"])
        return f"{value} {words}" if words.startswith(_OF_A_VALUE) else words
    if kind in ("literal_error", "enum"):
        choices = re.findall(r"'([^']*)'", str(context["expected"]))
        return f"{value} is not one of {', '.join(choices)}{suggestion(str(detail['input']), choices)}"
    if kind in _LIMITS:
        return f"{value} must be {_LIMITS[kind].format(**context)}"
    for start, expected in _SHOULD_BE.items():
        if kind.startswith(start):
            return f"{value} is not {expected}"
    return f"{value}: {detail['msg'][:1].lower()}{detail['msg'][1:]}"


def is_secret(path: TreePath) -> bool:
    """Whether what stands there is likely to be a secret. A component's id says nothing of that, a file's name is none, and a
    ``key`` in an entry of a list names something, as of attributes."""
    parts = path[:1] + path[2:] if path[:1] in _SECTIONS else path
    *above, last = parts or ("",)
    if last == "key" and above and isinstance(above[-1], int):
        parts = tuple(above)
    elif _FILE.search(str(last)) and "headers" not in parts:  # a header may have any name
        return False
    return any(_SECRET.search(str(part)) for part in parts)


def value_text(value: Any, path: TreePath) -> str:
    """A value as one would write it in the file, clipped; a likely secret is not shown."""
    if is_secret(path):
        return "the value (not shown)"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"
