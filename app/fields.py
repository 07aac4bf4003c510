"""The fields of settings models: their dotted keys, those inside lists of models too, and how their values read."""

import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, SecretStr
from pydantic.fields import FieldInfo

from app import quantities

_TIMES: Final = (("d", 86400), ("h", 3600), ("m", 60))
_SIZES: Final = (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))


@dataclass(frozen=True, slots=True)
class Leaf:
    """One value: `key` is `proxy.upstreams.0.url`, `root` the key of the setting it is a part of, `proxy.upstreams`.

    `given` says whether somebody set it rather than its model's default.
    """

    key: str
    root: str
    value: Any
    field: FieldInfo
    given: bool


def roots(model: type[BaseModel], prefix: str = "") -> dict[str, FieldInfo]:
    """Dotted key -> field of every setting that has a value of its own; a list of models is one setting."""
    found: dict[str, FieldInfo] = {}
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found |= roots(inner, f"{prefix}{name}.")
        else:
            found[prefix + name] = field
    return found


def leaves(model: BaseModel, prefix: str = "", root: str = "") -> Iterator[Leaf]:
    """Every value below a model, secrets still wrapped; an empty list is one value, a list of models many."""
    for name, field in type(model).model_fields.items():
        value, key = getattr(model, name), prefix + name
        if isinstance(value, BaseModel):
            yield from leaves(value, f"{key}.", root)
        elif value and item_model(field.annotation):
            for place, item in enumerate(value):
                yield from leaves(item, f"{key}.{place}.", root or key)
        else:
            yield Leaf(key, root or key, value, field, name in model.model_fields_set)


def described(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every setting that can be written, for people: `proxy.upstreams`, then `proxy.upstreams[].name` and so on."""
    for name, field in model.model_fields.items():
        key = prefix + name
        inner, item = model_of(field.annotation), item_model(field.annotation)
        if item is not None:
            yield key, field
            yield from described(item, f"{key}[].")
        elif inner is not None:
            yield from described(inner, f"{key}.")
        else:
            yield key, field


def model_of(annotation: Any) -> type[BaseModel] | None:
    """The model of `Model` and of `Model | None`."""
    for part in _alternatives(annotation):
        if isinstance(part, type) and issubclass(part, BaseModel):
            return part
    return None


def item_model(annotation: Any) -> type[BaseModel] | None:
    """The model of `list[Model]`."""
    return model_of(typing.get_args(annotation)[0]) if is_list(annotation) else None


def is_list(annotation: Any) -> bool:
    """Whether the value is a list."""
    return typing.get_origin(annotation) is list


def is_secret(annotation: Any) -> bool:
    """Whether the value must not be shown."""
    return SecretStr in _alternatives(annotation)


def is_text(annotation: Any) -> bool:
    """Whether the value is text, so that a file may hold it."""
    return bool({str, SecretStr} & set(_alternatives(annotation)))


def follow(field: FieldInfo, path: Sequence[int | str]) -> tuple[list[int | str], FieldInfo | None, Any]:
    """Where `path` leads below a field: the part of it that can be followed, the last field met, what is annotated."""
    trail: list[int | str] = []
    found: FieldInfo | None = field
    annotation: Any = field.annotation
    for part in path:
        if isinstance(part, int) and is_list(annotation):
            found, annotation = None, typing.get_args(annotation)[0]
        elif (model := model_of(annotation)) is not None and part in model.model_fields:
            found = model.model_fields[str(part)]
            annotation = found.annotation
        else:
            break
        trail.append(part)
    return trail, found, annotation


def unit(field: FieldInfo | None) -> Literal["duration", "size"] | None:
    """What a number counts: seconds, bytes, or neither."""
    if field is None:
        return None
    marks = [*field.metadata]
    for part in _alternatives(field.annotation, keep=True):
        marks += getattr(part, "__metadata__", ())
    functions = [mark.func for mark in marks if isinstance(mark, BeforeValidator)]
    if quantities.seconds in functions:
        return "duration"
    return "size" if quantities.size in functions else None


def readable(value: Any, field: FieldInfo | None) -> Any:
    """The value as people write it, `5m` or `20GiB`, where it is a duration or a size; else as it is."""
    kind = unit(field)
    if kind is None or isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return _duration(value) if kind == "duration" else _size(int(value))


def _duration(seconds: float) -> str:
    rest, text = seconds, ""
    for sign, length in _TIMES:
        count, rest = divmod(rest, length)
        text += f"{count:.0f}{sign}" if count else ""
    return text + (f"{round(rest, 3):g}s" if rest or not text else "")


def _size(count: int) -> str:
    for sign, length in _SIZES:
        if count >= length and count % length == 0:
            return f"{count // length}{sign}"
    return f"{count}B"


def _alternatives(annotation: Any, *, keep: bool = False) -> list[Any]:
    """The members of a union, or the annotation itself; without their `Annotated` unless `keep`."""
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    parts = list(typing.get_args(annotation)) if union else [annotation]
    return parts if keep else [_bare(part) for part in parts]


def _bare(annotation: Any) -> Any:
    return typing.get_args(annotation)[0] if typing.get_origin(annotation) is Annotated else annotation
