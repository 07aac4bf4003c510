"""What is said about a configuration that is wrong: the key, what it must be, what it is unless that may be secret."""

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic.fields import FieldInfo

from app import fields

Layer = dict[str, tuple[Any, str]]
"""Dotted key -> value and origin."""

_USER: Final = re.compile(r"//\S*@")
_QUERY: Final = re.compile(r"(://[^?#\s]*[?#])\S+")


def redacted(text: str) -> str:
    """A text without what a URL in it may hold of secrets: user, password, query."""
    return _QUERY.sub(r"\1****", _USER.sub("//****@", text))


_LISTED: Final = "; `edge-registry config show` lists all there are"


def nearest(name: str, candidates: Iterable[str], *, or_else: str = _LISTED) -> str:
    """`; did you mean ...?`, by the whole name or, for a key in the wrong section, by its last part; else `or_else`."""
    pool = sorted(candidates)
    last = {key.rpartition(".")[2]: key for key in pool}
    near = difflib.get_close_matches(name, pool, n=1, cutoff=0.7)
    near = near or [last[part] for part in difflib.get_close_matches(name.rpartition(".")[2], last, n=1, cutoff=0.7)]
    return f"; did you mean {near[0]}?" if near else or_else


def explain(problem: Mapping[str, Any], merged: Layer, known: Mapping[str, FieldInfo]) -> str:
    """One line for one of pydantic's errors, with the origin of the value."""
    path = list(problem["loc"])
    names = [".".join(map(str, path[:count])) for count in range(len(path), 0, -1)]
    key = next((name for name in names if name in known), names[0] if names else "configuration")
    origins = [origin for name, (_, origin) in merged.items() if f"{name}.".startswith(f"{key}.")]
    origin = f" ({origins[0]})" if origins else ""
    if key not in known:
        return f"{key}: {_requirement(problem, None)}{origin}"
    below = path[key.count(".") + 1 :]
    trail, field, annotation = fields.follow(known[key], below)
    if problem["type"] == "extra_forbidden":
        return _unknown(key, trail, below, annotation) + origin
    inside = fields.item_model(known[key].annotation) is not None
    name = ".".join([key, *map(str, trail)]) if inside else key
    said = _said(_value(merged.get(key, (None, ""))[0], trail if inside else []), annotation)
    return f"{name}: {_requirement(problem, field)}{said}{origin}"


def _unknown(key: str, trail: list[int | str], below: list[Any], annotation: Any) -> str:
    model = fields.model_of(annotation)
    place = ".".join([key, *map(str, trail)])
    name = f"{place}.{below[-1]}"
    return f"unknown key {name}{nearest(name, [f'{place}.{field}' for field in model.model_fields] if model else [])}"


def _value(value: Any, trail: list[int | str]) -> Any:
    """What was written at a place of a list of mappings; None where nothing was."""
    for part in trail:
        if isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
        else:
            value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _said(value: Any, annotation: Any) -> str:
    """`, not '...'`; nothing for secrets, nor for text in the place of mappings, which may hold some."""
    may_hold_secrets = fields.is_secret(annotation) or fields.model_of(annotation) or fields.item_model(annotation)
    if may_hold_secrets or not isinstance(value, str | int | float):
        return ""
    return f", not {redacted(str(value))[:80]!r}"


def _requirement(problem: Mapping[str, Any], field: FieldInfo | None) -> str:
    kind, context = str(problem["type"]), problem.get("ctx", {})
    low, high = (fields.readable(context.get(one, context.get(other)), field) for one, other in _BOUNDS)
    number = {"duration": "must be a duration such as 90s, 5m or 12h", "size": "must be a size such as 500MB or 20GiB"}
    counted = number.get(fields.unit(field) or "")
    sentences = {
        "int": counted or "must be a whole number",
        "float": counted or "must be a number",
        "bool": "must be true or false",
        "string": "must be text; put it in quotes",
        "string_pattern_mismatch": f"must match {context.get('pattern')}",
        "string_too_short": "must not be empty",
        "path": "must be a path",
        "list": "must be a list",
        "model": "must be a mapping of keys",
        "missing": "must be set",
        "literal": f"must be {context.get('expected')}",
        "greater": f"must be {'at least' if 'ge' in context else 'more than'} {low}",
        "less": f"must be {'at most' if 'le' in context else 'less than'} {high}",
        "value": str(context.get("error")),
    }
    return sentences.get(kind) or sentences.get(kind.partition("_")[0]) or str(problem["msg"])


_BOUNDS: Final = (("ge", "gt"), ("le", "lt"))
