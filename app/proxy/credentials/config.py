"""What docker's config.json, podman's auth.json and an image pull secret say."""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Final, TypeVar

from app.proxy.credentials.login import IDENTITY_TOKEN, Login

V = TypeVar("V")

_HUB: Final = "docker.io"
_HUB_HOSTS: Final = frozenset({_HUB, "index.docker.io", "registry-1.docker.io"})
_HUB_KEY: Final = "https://index.docker.io/v1/"


@dataclass(frozen=True, slots=True)
class Config:
    """One file; its secrets are decoded only when they are asked for."""

    auths: Mapping[str, Any] = field(repr=False)
    helpers: Mapping[str, str]
    store: str | None

    def helper(self, host: str) -> str | None:
        """The name of the helper that knows this host: its own, else the one for all."""
        return _found(self.helpers, host) or self.store

    def login(self, host: str) -> Login | None:
        """What the file itself says of the host. Raises ValueError, safe to show, for an entry that is broken."""
        entry = _found(self.auths, host)
        return None if entry is None else _login(entry)


def parse(data: bytes) -> Config:
    """The meaning of a file's bytes. Raises ValueError, safe to show."""
    try:
        content = json.loads(data)
    except ValueError:
        raise ValueError("is not JSON") from None
    if not isinstance(content, dict):
        raise ValueError("is no JSON object")
    if not content.keys() & {"auths", "credHelpers", "credsStore"} and _is_old(content):
        content = {"auths": content}
    auths, helpers, store = content.get("auths"), content.get("credHelpers"), content.get("credsStore")
    if not isinstance(auths or {}, dict) or not isinstance(helpers or {}, dict) or not isinstance(store or "", str):
        raise ValueError("is no file of logins: auths or credHelpers is no object, or credsStore no text")
    named = {key: name for key, name in (helpers or {}).items() if isinstance(name, str) and name}
    return Config(auths or {}, named, store or None)


def helper_key(host: str) -> str:
    """What a helper is asked for where a login to `host` is wanted: docker keeps Docker Hub's under an old name."""
    return _HUB_KEY if host.lower() in _HUB_HOSTS else host


def _is_old(content: Mapping[str, Any]) -> bool:
    """Whether it is a `.dockercfg`, which is `auths` and nothing around it."""
    return bool(content) and all(isinstance(value, dict) and "auth" in value for value in content.values())


def _found(entries: Mapping[str, V], host: str) -> V | None:
    """The entry of a host: its own, else that of its shortest path, else that of a pattern such as `*.gcr.io`."""
    wanted = _place(host)
    places = [(_place(key), entry) for key, entry in entries.items()]
    for place, entry in places:
        if place == wanted:
            return entry
    below = [(place, entry) for place, entry in places if place.startswith(f"{wanted}/")]
    if below:  # the repository, by which podman chooses among paths, is not known here
        return min(below, key=lambda pair: len(pair[0]))[1]
    for place, entry in places:
        if _fits(place.partition("/")[0], wanted):
            return entry
    return None


def _place(key: str) -> str:
    """`host[:port][/path]` of a key in any of the ways in which programs write it."""
    text = key.strip().removeprefix("https://").removeprefix("http://").rstrip("/")
    host, _, path = text.partition("/")
    host = host.lower()
    if host in _HUB_HOSTS:
        host = _HUB
    return host if path in ("", "v1", "v2") else f"{host}/{path}"


def _fits(pattern: str, host: str) -> bool:
    """Kubernetes' patterns: each label by itself, so that `*` stands for one."""
    labels, wanted = pattern.split("."), host.split(".")
    return "*" in pattern and len(labels) == len(wanted) and all(map(fnmatchcase, wanted, labels))


def _login(entry: Any) -> Login | None:
    if not isinstance(entry, dict):
        raise ValueError("is no object")
    token, auth = entry.get("identitytoken"), entry.get("auth")
    if token and isinstance(token, str):
        return Login(IDENTITY_TOKEN, token)
    if auth and isinstance(auth, str):
        return _decoded(auth)
    username, password = entry.get("username"), entry.get("password")
    if username and password and isinstance(username, str) and isinstance(password, str):
        return Login(username, password)
    return None  # docker leaves an empty object where a helper keeps the login


def _decoded(auth: str) -> Login:
    try:
        username, colon, password = base64.b64decode(auth, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        raise ValueError("is not base64 of a user and a password") from None
    if not username or not colon:
        raise ValueError("holds no user and password")
    return Login(username, password.strip("\0"))
