"""The configuration: every value there is, and where it came from.

Each source becomes a layer of dotted keys; later layers win: defaults, the YAML file, Distribution's `REGISTRY_*`,
our own `EDGE_REGISTRY_SECTION__KEY`, options. All layers are then
checked at once, so that every mistake is named in one go.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from app import distribution, documents, fields
from app.errors import StartError
from app.mistakes import Layer, explain, nearest
from app.settings import Listener, Settings, is_loopback as is_loopback

PREFIX: Final = "EDGE_REGISTRY_"
FILE_VARIABLE: Final = "EDGE_REGISTRY_CONFIG"
DEFAULT_USERS: Final = Path("registry-users")
"""The htpasswd file that is used where none is named and this one is there; `user add` makes it."""

# What Kubernetes sets in every pod for Services called `registry` or `edge-registry`, or so prefixed.
_INJECTED: Final = re.compile(
    r"(EDGE_)?REGISTRY(_[A-Z0-9]+)*?_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|(?P<url>PORT(_\d+_(TCP|UDP|SCTP))?)"
    r"|PORT_\d+_(TCP|UDP|SCTP)_(PROTO|PORT|ADDR))"
)


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
    known = fields.roots(Settings)
    variables = {name: value for name, value in environ.items() if not _injected(name, value)}
    path = file or variables.get(FILE_VARIABLE) or variables.get("REGISTRY_CONFIGURATION_PATH")
    document = documents.read_mapping(Path(path)) if path else {}
    merged: Layer = {}
    theirs: distribution.Keys = {}
    if distribution.recognises(document):
        theirs |= distribution.from_document(document, str(path))
    else:
        merged |= _read_document(document, f"file {path}", known)
    theirs |= distribution.from_environment(variables)
    translation = distribution.translate(theirs)
    merged |= translation.values
    merged |= _read_environment(variables, known)
    for option, given in (options or {}).items():
        merged |= {key: (value, f"option {option}") for key, value in given.items()}
    if "auth.htpasswd" not in merged and DEFAULT_USERS.is_file():
        merged["auth.htpasswd"] = (DEFAULT_USERS, "default")
    settings = _validate(merged, known)
    origins = {key: merged[key][1] if key in merged else "default" for key in known}
    return Configuration(settings, origins, [*translation.warnings, *_cautions(settings, merged, translation.values)])


def resolve(settings: Settings) -> Settings:
    """Fills in `http.host` and `auth.anonymous` where they are unset: a registry without users stays on this machine.

    What it returns may be asked for `listening()`. Raises StartError, a line for each listener that cannot be as it
    is, also where one would be open to the network and nobody said that it may.
    """
    users = settings.auth.htpasswd is not None
    host = settings.http.host or ("0.0.0.0" if users else "127.0.0.1")  # noqa: S104 (with users only)
    anonymous = settings.auth.anonymous or ("none" if users else "push")
    resolved = settings.model_copy(
        update={
            "http": settings.http.model_copy(update={"host": host}),
            "auth": settings.auth.model_copy(update={"anonymous": anonymous}),
        }
    )
    problems = [*_open_by_chance(settings, resolved), *_at_odds(resolved)]
    if problems:
        raise StartError("\n".join(problems))
    return resolved


def _open_by_chance(settings: Settings, resolved: Settings) -> Iterator[str]:
    """The listeners that everybody on the network could push to although nobody said so."""
    if settings.auth.anonymous is not None or settings.auth.htpasswd is not None:
        return
    said = [given.anonymous is not None for given in settings.listeners] or [False]
    for listener, chosen in zip(resolved.listening(), said, strict=True):
        if not chosen and not is_loopback(listener.host):
            place = f", or {listener.key}.anonymous" if settings.listeners else ""
            yield (
                f"{listener.key}.host {listener.host} is open to the network and there are no users: add one with "
                "`edge-registry user add NAME` and set auth.htpasswd, or let everybody in with `auth.anonymous: push`"
                f"{place} or --insecure-anonymous"
            )


def _at_odds(settings: Settings) -> Iterator[str]:
    """What single listeners say that does not fit to the others or to the rest of the configuration."""
    upstreams = {name for upstream in settings.proxy.upstreams for name in (upstream.name, *upstream.aliases)}
    taken: dict[tuple[str, int], Listener] = {}
    for listener, given in zip(settings.listening(), settings.listeners, strict=False):
        first = taken.setdefault((listener.host, listener.port), listener)
        if first is not listener:
            yield f"{listener.key} and {first.key} are both at {listener.host}:{listener.port}"
        if given.default_upstream and given.default_upstream not in upstreams:
            yield (
                f"{listener.key}.default_upstream: there is no upstream called {given.default_upstream}"
                f"{nearest(given.default_upstream, upstreams, or_else='')}"
            )
        if given.tls and "tls" in given.model_fields_set and not listener.tls:
            yield f"{listener.key}.tls: there is no certificate: set http.tls.certificate and http.tls.key"


def variable(key: str) -> str:
    """The environment variable of a dotted key."""
    return PREFIX + key.upper().replace(".", "__")


def _injected(name: str, value: str) -> bool:
    match = _INJECTED.fullmatch(name)
    return match is not None and (match["url"] is None or "://" in value)


def _read_document(document: Mapping[Any, Any], origin: str, known: Mapping[str, FieldInfo]) -> Layer:
    sections = {key[: end.start()] for key in known for end in re.finditer(r"\.", key)}
    files = {f"{key}_file": key for key, field in known.items() if _may_be_a_file(field)}
    layer: Layer = {}
    for key, value in _walk_document(document, sections):
        if key in sections and value is not None:
            raise StartError(f"{key}: must be a section of keys ({origin})")
        if key not in known and key not in files and key not in sections:
            raise StartError(f"unknown key {key}{nearest(key, [*known, *sections])} ({origin})")
        if value is None:
            continue
        name = files.get(key, key)
        _add(layer, name, _read_value(name, value, origin, known[name]) if key in files else value, origin)
    return layer


def _walk_document(node: Mapping[Any, Any], sections: set[str], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        key = f"{prefix}{name}"
        if key in sections and isinstance(value, Mapping):
            yield from _walk_document(value, sections, f"{key}.")
        else:
            yield key, value


def _read_environment(environ: Mapping[str, str], known: Mapping[str, FieldInfo]) -> Layer:
    names = {variable(key): key for key in known}
    files = {f"{variable(key)}_FILE": key for key, field in known.items() if _may_be_a_file(field)}
    layer: Layer = {}
    for name, text in environ.items():
        if not name.startswith(PREFIX) or name == FILE_VARIABLE:
            continue
        if name not in names and name not in files:
            raise StartError(f"unknown variable {name}{nearest(name, names)}")
        if not text:  # `${X:-}` in a compose file means: not set
            continue
        key, origin = names.get(name) or files[name], f"environment {name}"
        value = _read_value(key, text, origin, known[key]) if name in files else _parse_variable(name, text, known[key])
        _add(layer, key, value, origin)
    return layer


def _add(layer: Layer, key: str, value: Any, origin: str) -> None:
    if key in layer:
        raise StartError(f"{key}: given both itself and as a file ({origin})")
    layer[key] = (value, origin)


def _may_be_a_file(field: FieldInfo) -> bool:
    """Whether `..._file` may name a file that holds the value: text, or a list of mappings, as secrets may be in it."""
    return fields.is_text(field.annotation) or fields.item_model(field.annotation) is not None


def _read_value(key: str, path: Any, origin: str, field: FieldInfo) -> Any:
    """The value that a file holds."""
    if fields.item_model(field.annotation) is not None:
        return documents.read(Path(str(path)), f"{key}: ")
    return _read_secret(key, Path(str(path)), origin)


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


def _parse_variable(name: str, text: str, field: FieldInfo) -> Any:
    """Lists of mappings are YAML, which JSON is too; other lists are words with commas between them."""
    if fields.item_model(field.annotation) is not None:
        return documents.parse(text, name)
    return _listed(text, name) if fields.is_list(field.annotation) else text


def _listed(text: str, name: str) -> list[str]:
    """`a,b`; what looks like JSON is refused rather than taken for one strange word."""
    if text.lstrip().startswith(("[", "{", '"')):
        raise StartError(f"{name} is a list: write its items with commas between them, without brackets and quotes")
    return [part.strip() for part in text.split(",") if part.strip()]


def _validate(merged: Layer, known: Mapping[str, FieldInfo]) -> Settings:
    nested: dict[str, Any] = {}
    for key, (value, origin) in merged.items():
        *sections, last = key.split(".")
        node = nested
        for section in sections:
            node = node.setdefault(section, {})
        try:
            node[last] = documents.without_nulls(value)
        except RecursionError:
            raise StartError(f"{key}: refers to itself ({origin})") from None
    try:
        return Settings.model_validate(nested)
    except ValidationError as error:
        lines = [explain(dict(problem), merged, known) for problem in error.errors(include_url=False)]
    raise StartError("\n".join(dict.fromkeys(lines)))


def _cautions(settings: Settings, merged: Layer, translated: Layer) -> Iterator[str]:
    """What is right, and yet not what was meant, perhaps."""
    if settings.listeners and "http.port" in merged:
        yield f"http.port has no effect: listeners say where the server listens ({merged['http.port'][1]})"
    upstreams = translated.get("proxy.upstreams")
    refuses = settings.registry.read_only or any(listener.read_only for listener in settings.listeners)
    if upstreams is not None and merged["proxy.upstreams"] is upstreams and not refuses:
        yield (
            "unlike Distribution as a proxy, this registry also takes pushes, beside what it caches: registry.read_only "
            f"or the read_only of a listener refuses them ({upstreams[1]})"
        )
