"""Distribution's names: its environment variables and its YAML, said in ours.

Both are reduced to Distribution's own dotted keys (`REGISTRY_HTTP_ADDR` and `http: {addr: ...}` are `http.addr`) and
looked up in one table. What has no meaning here is named in a warning, unless nobody would miss it.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import yaml

from app.errors import StartError

T = TypeVar("T")

PREFIX: Final = "REGISTRY_"

_DRIVERS: Final = {"s3": "s3", "s3aws": "s3", "filesystem": "filesystem", "inmemory": "memory"}
_FOREIGN_DRIVERS: Final = frozenset({"azure", "gcs", "oss", "swift", "middleware"})

# Not the server's: containers/image reads the first, Distribution's own start-up the second (see `configuration.load`).
_NOT_SETTINGS: Final = frozenset({"REGISTRY_AUTH_FILE", "REGISTRY_CONFIGURATION_PATH"})

_QUIET: Final = re.compile(
    r"version|catalog\.maxentries|http\.(relativeurls|net|headers\.x-content-type-options|http2\..*|h2c\..*)"
    r"|http\.debug\.prometheus\..*|log\.(accesslog|fields|reportcaller)(\..*)?|health\..*|redis\..*"
    r"|storage\.(cache|tag)\..*|storage\.maintenance\.uploadpurging(\..*)?|compatibility\..*|validation\..*|policy\..*"
    r"|storage\.s3\.(v4auth|chunksize|multipart\w+|useragent|loglevel)"
)

_READ_WITH_OTHERS: Final = frozenset(
    {
        "storage.s3.secure", "proxy.remoteurl", "proxy.username", "proxy.password", "proxy.exec.command",
        "proxy.exec.lifetime",
    }
)  # fmt: skip

_DOCKER_HUB: Final = ("docker.io", "index.docker.io", "registry-1.docker.io")

_NOTES: Final = {
    "http.secret": "is not needed: replicas share their key through the bucket",
    "http.debug.addr": "has no effect here: metrics are at /metrics of the registry's own port",
    "storage.s3.rootdirectory": "is not used: keys begin at the root of the bucket; `adopt --root` takes over what lies below it",
    "proxy.ttl": "has no effect here: what was fetched stays, and a tag is checked again after the upstream's tag_ttl",
}

Found = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Given:
    """A value, the name by which the operator knows its key, and where it came from."""

    value: Any
    name: str
    origin: str


Keys = dict[str, Given]
"""By Distribution's dotted keys. As in Distribution, a variable takes the place of the same key of the file."""


@dataclass(slots=True)
class Translation:
    """Our keys with their value and its origin, and a line for each of Distribution's keys that does nothing."""

    values: dict[str, tuple[Any, str]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def from_environment(environ: Mapping[str, str]) -> Keys:
    """The `REGISTRY_*` variables. Raises StartError for one that cannot be read."""
    found: Keys = {}
    for name, text in environ.items():
        if not name.startswith(PREFIX) or name in _NOT_SETTINGS or not text:
            continue
        key = name.removeprefix(PREFIX).lower().replace("_", ".")
        for path, value in _flatten(_structure(name, text), key):
            found[_canonical(path)] = Given(value, name, f"environment {name}")
    return found


def from_document(document: Mapping[Any, Any], path: str) -> Keys:
    """A parsed configuration file of Distribution, read from `path`. Raises StartError where it names two stores."""
    origin = f"file {path}"
    found = {_canonical(key): Given(value, key, origin) for key, value in _flatten(document, "")}
    storage = document.get("storage")
    if isinstance(storage, Mapping):
        drivers = [str(name) for name in storage if name in _DRIVERS or name in _FOREIGN_DRIVERS]
        if len(drivers) > 1:
            raise StartError(f"storage: names more than one store, {' and '.join(drivers)} ({origin})")
        if drivers:
            found["storage"] = Given(drivers[0], "storage", origin)
    return found


def recognises(document: Mapping[Any, Any]) -> bool:
    """Whether a parsed YAML document is one of Distribution's: they all begin with `version: 0.1`."""
    return str(document.get("version", "")) == "0.1"


def _structure(name: str, text: str) -> Any:
    """Distribution reads variables as YAML; only a mapping in braces makes a difference here."""
    if not text.lstrip().startswith("{"):
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise StartError(f"{name}: begins like a mapping but is not valid YAML") from None


def _flatten(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(node, Mapping):
        if node is not None and path:
            yield path, node
        return
    for key, value in node.items():
        yield from _flatten(value, f"{path}.{key}".lstrip(".").lower())


def _canonical(key: str) -> str:
    return re.sub(r"^storage\.s3aws\.", "storage.s3.", key)


def translate(keys: Keys) -> Translation:
    """What they are here. Raises StartError for a value that is not understood or a store we do not have."""
    result = Translation()
    for key, given in keys.items():
        if key in _KEYS:
            ours = _told(_KEYS[key], given)
            result.values.update({our_key: (our_value, given.origin) for our_key, our_value in ours.items()})
        elif not _is_quiet(key, given.value):
            result.warnings.append(f"{given.name} {_NOTES.get(key, 'has no effect here')} ({given.origin})")
    _complete_endpoint(result, keys)
    _add_upstream(result, keys)
    return result


def _told(convert: Callable[[Any], T], given: Given) -> T:
    try:
        return convert(given.value)
    except ValueError as error:
        raise StartError(f"{given.name}: {error} ({given.origin})") from None


def _is_quiet(key: str, value: Any) -> bool:
    """Whether nobody would miss what this key does in Distribution, or it is read together with another."""
    if key in _READ_WITH_OTHERS or (key == "auth" and value == "htpasswd"):
        return True
    return (key == "proxy.ttl" and _is_zero(value)) or _QUIET.fullmatch(key) is not None


def _complete_endpoint(result: Translation, keys: Keys) -> None:
    """Distribution's `regionendpoint` may lack a scheme; `secure` then chooses it."""
    endpoint, origin = result.values.get("storage.s3.endpoint", ("", ""))
    if not endpoint or "://" in endpoint:
        return
    secure = keys.get("storage.s3.secure")
    scheme = "https" if secure is None or _told(_boolean, secure) else "http"
    result.values["storage.s3.endpoint"] = (f"{scheme}://{endpoint}", origin)


def _add_upstream(result: Translation, keys: Keys) -> None:
    """Distribution's proxy is one upstream, and everything that is not here is looked for there."""
    remote = keys.get("proxy.remoteurl")
    if remote is None:
        alone = [given for key, given in keys.items() if key in _READ_WITH_OTHERS and key.startswith("proxy.")]
        result.warnings += [f"{given.name} has no effect without proxy.remoteurl ({given.origin})" for given in alone]
        return
    upstream = _told(_upstream, remote)
    credentials: dict[str, Any] = {}
    for ours, theirs in (("username", "proxy.username"), ("password", "proxy.password")):
        if theirs in keys:
            credentials[ours] = str(keys[theirs].value)
    if "proxy.exec.command" in keys:
        credentials["helper"] = _told(_helper, keys["proxy.exec.command"])
    if "proxy.exec.lifetime" in keys and "helper" in credentials:
        lifetime = _told(_seconds, keys["proxy.exec.lifetime"])
        credentials |= {"helper_lifetime": lifetime} if lifetime else {}
    if credentials:
        upstream["credentials"] = credentials
    result.values["proxy.upstreams"] = ([upstream], remote.origin)
    result.values["proxy.default_upstream"] = (upstream["name"], remote.origin)


def _upstream(value: Any) -> dict[str, Any]:
    """An upstream called after its host; Docker Hub by the name that everybody uses."""
    text = str(value)
    try:
        url = urlsplit(text)
        port = f":{url.port}" if url.port else ""
    except ValueError:
        raise ValueError("must be a URL with http or https") from None
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ValueError("must be a URL with http or https")
    if url.hostname in _DOCKER_HUB:
        aliases = [host for host in _DOCKER_HUB if host != "docker.io"]
        return {"name": "docker.io", "aliases": aliases, "url": text}
    return {"name": f"{url.hostname}{port}", "url": text}


def _helper(value: Any) -> str:
    """The `gcr` of `/usr/bin/docker-credential-gcr`: helpers are looked for on the PATH."""
    words = str(value).split()
    program = words[0].rpartition("/")[2] if len(words) == 1 else ""
    helper = program.removeprefix("docker-credential-")
    if not helper or helper == program:
        raise ValueError("must be a program called docker-credential-..., without arguments")
    return helper


def _is_zero(value: Any) -> bool:
    try:
        return _seconds(value) == 0
    except ValueError:
        return False


def _boolean(value: Any) -> bool:
    words = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
    word = str(value).strip().lower()
    if word not in words:
        raise ValueError("must be true or false")
    return words[word]


def _opposite(value: Any) -> bool:
    return not _boolean(value)


def _same(value: Any) -> Any:
    return value


def _to(key: str, convert: Callable[[Any], Any] = _same) -> Callable[[Any], Found]:
    return lambda value: {key: convert(value)}


def _address(value: Any) -> Found:
    """`host:port`; a missing host leaves the choice to our own rule, which knows whether there are users."""
    host, colon, port = str(value).rpartition(":")
    if not colon or not port.isdecimal():
        raise ValueError("must be host:port or :port")
    host = host.removeprefix("[").removesuffix("]")
    return {"http.port": int(port), **({"http.host": host} if host else {})}


def _driver(value: Any) -> Found:
    if value not in _DRIVERS:
        raise ValueError(f"the store {value} is not supported; s3, filesystem and inmemory are")
    return {"storage.driver": _DRIVERS[value]}


def _level(value: Any) -> str:
    return {"warn": "warning", "trace": "debug", "fatal": "error", "panic": "error"}.get(str(value), str(value))


def _formatter(value: Any) -> str:
    return {"text": "console", "logstash": "json"}.get(str(value), str(value))


def _seconds(value: Any) -> float:
    """Go's durations: `90s`, `1m30s`, `500ms`; Distribution reads a bare number as nanoseconds."""
    units = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1e-9}
    text = str(value).strip()
    if not re.fullmatch(r"(\d+(\.\d+)?(ns|us|ms|s|m|h))+|\d+", text):
        raise ValueError("must be a duration such as 90s")
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+)([a-z]*)", text))


_KEYS: Final[Mapping[str, Callable[[Any], Found]]] = {
    "http.addr": _address,
    "http.host": _to("http.public_url"),
    "http.draintimeout": _to("http.drain_timeout", _seconds),
    "http.tls.certificate": _to("http.tls.certificate"),
    "http.tls.key": _to("http.tls.key"),
    "auth.htpasswd.path": _to("auth.htpasswd"),
    "auth.htpasswd.realm": _to("auth.realm"),
    "storage": _driver,
    "storage.filesystem.rootdirectory": _to("storage.filesystem.root"),
    "storage.s3.accesskey": _to("storage.s3.access_key"),
    "storage.s3.secretkey": _to("storage.s3.secret_key"),
    "storage.s3.region": _to("storage.s3.region"),
    "storage.s3.regionendpoint": _to("storage.s3.endpoint"),
    "storage.s3.bucket": _to("storage.s3.bucket"),
    "storage.s3.forcepathstyle": _to("storage.s3.path_style"),
    "storage.s3.skipverify": _to("storage.s3.verify", _opposite),
    "storage.delete.enabled": _to("registry.delete"),
    "storage.redirect.disable": _to("storage.s3.redirect", _opposite),
    "storage.maintenance.readonly.enabled": _to("registry.read_only"),
    "log.level": _to("log.level", _level),
    "loglevel": _to("log.level", _level),
    "log.formatter": _to("log.format", _formatter),
}
