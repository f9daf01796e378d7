"""``filter`` as the selectors of the API: https://kubernetes.io/docs/concepts/overview/working-with-objects/."""

from __future__ import annotations

from collections.abc import Sequence

from .settings import FieldFilter, LabelFilter


def field_selector(node: str, fields: Sequence[FieldFilter]) -> str:
    parts = [f"spec.nodeName={_escaped(node)}"] if node else []
    parts += [f"{one.key}{'!=' if one.op == 'not-equals' else '='}{_escaped(one.value)}" for one in fields]
    return ",".join(parts)


def label_selector(labels: Sequence[LabelFilter]) -> str:
    return ",".join(map(_of_label, labels))


def _of_label(one: LabelFilter) -> str:
    match one.op:
        case "exists":
            return one.key
        case "does-not-exist":
            return f"!{one.key}"
        case "not-equals":
            return f"{one.key}!={one.value}"
        case _:
            return f"{one.key}={one.value}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace(",", "\\,").replace("=", "\\=")
