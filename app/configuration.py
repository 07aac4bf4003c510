"""The configuration: every value there is, and where it came from.

Each source becomes a layer of dotted keys; later layers win: defaults, the YAML file, Distribution's `REGISTRY_*`,
our own `EDGE_REGISTRY_SECTION__KEY`, options. All layers are then
checked at once, so that every mistake is named in one go.
"""

import difflib
import ipaddress
import re
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel, SecretStr, ValidationError

from app import distribution
from app.errors import StartError
from app.settings import Settings

PREFIX: Final = "EDGE_REGISTRY_"
FILE_VARIABLE: Final = "EDGE_REGISTRY_CONFIG"
DEFAULT_USERS: Final = Path("registry-users")
"""The htpasswd file that is used where none is named and this one is there; `user add` makes it."""

# What Kubernetes sets in every pod for Services called `registry` or `edge-registry`, or so prefixed.
_INJECTED: Final = re.compile(
    r"(EDGE_)?REGISTRY(_[A-Z0-9]+)*?_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|(?P<url>PORT(_\d+_(TCP|UDP|SCTP))?)"
    r"|PORT_\d+_(TCP|UDP|SCTP)_(PROTO|PORT|ADDR))"
)

Layer = dict[str, tuple[Any, str]]
"""Dotted key -> value and origin."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """`origins`: dotted key -> "default", "file PATH", "environment NAME" or "option --x"; `warnings`: a line each."""

    settings: Settings
    origins: dict[str, str]
    warnings: list[str]


def load(
    file: Path | None, environ: Mapping[str, str], options: Mapping[str, Mapping[str, Any]] | None = None
) -> Configuration:
    """Reads every source.

    `file` may be None: then EDGE_REGISTRY_CONFIG, or Distribution's REGISTRY_CONFIGURATION_PATH, may name one.
    `options` maps an option as typed (`--port`) to the dotted keys it sets. Raises StartError, a line for each
    key that is wrong.
    """
    known = _keys(Settings)
    variables = {name: value for name, value in environ.items() if not _injected(name, value)}
    path = file or variables.get(FILE_VARIABLE) or variables.get("REGISTRY_CONFIGURATION_PATH")
    merged: Layer = {}
    warnings: list[str] = []
    if path:
        layer, notes = _read_file(Path(path), known)
        merged |= layer
        warnings += notes
    translation = distribution.from_environment(variables)
    warnings += translation.warnings
    merged |= translation.values
    merged |= _read_environment(variables, known)
    for option, given in (options or {}).items():
        merged |= {key: (value, f"option {option}") for key, value in given.items()}
    if "auth.htpasswd" not in merged and DEFAULT_USERS.is_file():
        merged["auth.htpasswd"] = (DEFAULT_USERS, "default")
    settings = _validate(merged, known)
    origins = {key: merged[key][1] if key in merged else "default" for key in known}
    return Configuration(settings, origins, warnings)


def resolve(settings: Settings) -> Settings:
    """Fills in `http.host` and `auth.anonymous` where they are unset: a registry without users stays on this machine.

    Raises StartError where it would be open to the network and nobody said that it may.
    """
    users = settings.auth.htpasswd is not None
    host = settings.http.host or ("0.0.0.0" if users else "127.0.0.1")  # noqa: S104 (with users only)
    anonymous = settings.auth.anonymous
    if anonymous is None:
        if not users and not is_loopback(host):
            raise StartError(
                f"http.host {host} is open to the network and there are no users: add one with `edge-registry user add "
                "NAME` and set auth.htpasswd, or let everybody in with `auth.anonymous: push` or --insecure-anonymous"
            )
        anonymous = "none" if users else "push"
    return settings.model_copy(
        update={
            "http": settings.http.model_copy(update={"host": host}),
            "auth": settings.auth.model_copy(update={"anonymous": anonymous}),
        }
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address; names other than localhost are not looked up and count as open."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def values(settings: Settings) -> dict[str, Any]:
    """Every dotted key with its value, secrets still wrapped."""
    return dict(_walk_model(settings))


def variable(key: str) -> str:
    """The environment variable of a dotted key."""
    return PREFIX + key.upper().replace(".", "__")


def _walk_model(model: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from _walk_model(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _keys(model: type[BaseModel], prefix: str = "") -> dict[str, Any]:
    """Dotted key -> annotation of every value that can be set."""
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= _keys(field.annotation, f"{prefix}{name}.")
        else:
            found[prefix + name] = field.annotation
    return found


def _injected(name: str, value: str) -> bool:
    match = _INJECTED.fullmatch(name)
    return match is not None and (match["url"] is None or "://" in value)


def _read_file(path: Path, known: Mapping[str, Any]) -> tuple[Layer, list[str]]:
    document = _parse(path)
    if distribution.recognises(document):
        translation = distribution.from_document(document, str(path))
        return translation.values, translation.warnings
    origin = f"file {path}"
    sections = {key[: end.start()] for key in known for end in re.finditer(r"\.", key)}
    files = {f"{key}_file": key for key, annotation in known.items() if _is_text(annotation)}
    layer: Layer = {}
    for key, value in _walk_document(document, sections):
        if key in sections and value is not None:
            raise StartError(f"{key}: must be a section of keys ({origin})")
        if key not in known and key not in files and key not in sections:
            raise StartError(f"unknown key {key}{_nearest(key, [*known, *sections])} ({origin})")
        if value is not None:
            _add(layer, files.get(key, key), value, origin, secret=key in files)
    return layer, []


class _UniqueKeys(yaml.SafeLoader):
    """YAML would take the last of two equal keys without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping. Raises ConstructorError where a key comes twice."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == "tag:yaml.org,2002:merge":
                continue
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(None, None, "a key comes twice", key_node.start_mark)
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def _parse(path: Path) -> Mapping[Any, Any]:
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys)  # noqa: S506 (a SafeLoader)
    except OSError as error:
        raise StartError(f"cannot read the configuration {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise StartError(f"the configuration {path} is not UTF-8 text") from None
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        problem = re.sub(r"'[^'<]{2,}'", "...", error.problem or "")  # a secret that begins with * or ! would be quoted
        raise StartError(f"the configuration {path}{line} is not valid YAML: {problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError):  # PyYAML lets int() and datetime() raise their own
        raise StartError(f"the configuration {path} is not valid YAML") from None
    if not isinstance(document, Mapping | None):
        raise StartError(f"the configuration {path} must be a mapping of sections")
    return document or {}


def _walk_document(node: Mapping[Any, Any], sections: set[str], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        key = f"{prefix}{name}"
        if key in sections and isinstance(value, Mapping):
            yield from _walk_document(value, sections, f"{key}.")
        else:
            yield key, value


def _read_environment(environ: Mapping[str, str], known: Mapping[str, Any]) -> Layer:
    names = {variable(key): key for key in known}
    files = {f"{variable(key)}_FILE": key for key, annotation in known.items() if _is_text(annotation)}
    layer: Layer = {}
    for name, text in environ.items():
        if not name.startswith(PREFIX) or name == FILE_VARIABLE:
            continue
        if name not in names and name not in files:
            raise StartError(f"unknown variable {name}{_nearest(name, names)}")
        if not text:  # `${X:-}` in a compose file means: not set
            continue
        key = names.get(name) or files[name]
        value = _listed(text, name) if _is_list(known[key]) else text
        _add(layer, key, value, f"environment {name}", secret=name in files)
    return layer


def _add(layer: Layer, key: str, value: Any, origin: str, *, secret: bool) -> None:
    """Puts one value into a layer; where `secret`, the value names the file that holds it."""
    if key in layer:
        raise StartError(f"{key}: given both itself and as a file ({origin})")
    layer[key] = (_read_secret(key, Path(str(value)), origin) if secret else value, origin)


def _read_secret(key: str, path: Path, origin: str) -> str:
    try:
        text = path.read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise StartError(f"{key}: cannot read {path}: {error.strerror} ({origin})") from None
    except UnicodeDecodeError:
        raise StartError(f"{key}: {path} is not UTF-8 text ({origin})") from None
    if not text:
        raise StartError(f"{key}: {path} is empty ({origin})")
    return text


def _is_text(annotation: Any) -> bool:
    return bool({str, SecretStr} & {annotation, *typing.get_args(annotation)})


def _listed(text: str, name: str) -> list[str]:
    """`a,b`; what looks like JSON is refused rather than taken for one strange word."""
    if text.lstrip().startswith(("[", "{", '"')):
        raise StartError(f"{name} is a list: write its items with commas between them, without brackets and quotes")
    return [part.strip() for part in text.split(",") if part.strip()]


def _is_list(annotation: Any) -> bool:
    return typing.get_origin(annotation) is list


def _nearest(name: str, candidates: Iterable[str]) -> str:
    """` (did you mean ...?)`, by the whole name or, for a key in the wrong section, by its last part."""
    pool = sorted(candidates)
    last = {key.rpartition(".")[2]: key for key in pool}
    near = difflib.get_close_matches(name, pool, n=1, cutoff=0.7)
    near = near or [last[part] for part in difflib.get_close_matches(name.rpartition(".")[2], last, n=1, cutoff=0.7)]
    return f"; did you mean {near[0]}?" if near else "; `edge-registry config show` lists all there are"


def _validate(merged: Layer, known: Mapping[str, Any]) -> Settings:
    nested: dict[str, Any] = {}
    for key, (value, _) in merged.items():
        *sections, last = key.split(".")
        node = nested
        for section in sections:
            node = node.setdefault(section, {})
        node[last] = value
    try:
        return Settings.model_validate(nested)
    except ValidationError as error:
        lines = [_explain(dict(problem), merged, known) for problem in error.errors(include_url=False)]
    raise StartError("\n".join(dict.fromkeys(lines)))


def _explain(problem: Mapping[str, Any], merged: Layer, known: Mapping[str, Any]) -> str:
    """One line for one of pydantic's errors: key, what it must be, what it is unless that is a secret, its origin."""
    path = [str(part) for part in problem["loc"]]
    names = [".".join(path[:count]) for count in range(len(path), 0, -1)]
    key = next((name for name in names if name in known), names[0] if names else "configuration")
    origins = [origin for name, (_, origin) in merged.items() if f"{name}.".startswith(f"{key}.")]
    value = merged.get(key, (None, ""))[0]
    shown = isinstance(value, str | int | float) and not _is_secret(known[key])
    said = f", not {str(value)[:80]!r}" if shown else ""
    return f"{key}: {_requirement(problem)}{said}" + (f" ({origins[0]})" if origins else "")


def _is_secret(annotation: Any) -> bool:
    return SecretStr in {annotation, *typing.get_args(annotation)}


def _requirement(problem: Mapping[str, Any]) -> str:
    kind, context = str(problem["type"]), problem.get("ctx", {})
    sentences = {
        "int": "must be a whole number",
        "float": "must be a number",
        "bool": "must be true or false",
        "string": "must be text; put it in quotes",
        "path": "must be a path",
        "list": "must be a list",
        "literal": f"must be {context.get('expected')}",
        "greater": f"must be {'at least' if 'ge' in context else 'more than'} {context.get('ge', context.get('gt'))}",
        "less": f"must be {'at most' if 'le' in context else 'less than'} {context.get('le', context.get('lt'))}",
        "value": str(context.get("error")),
    }
    return sentences.get(kind.partition("_")[0]) or str(problem["msg"])
