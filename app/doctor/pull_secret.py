"""A pull secret: is it one, are its servers ours, and do its logins work."""

import asyncio
import base64
import binascii
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from app import documents
from app.doctor.names import Host, listed
from app.doctor.over_http import Login
from app.doctor.report import Check, failed, ok, warning
from app.errors import StartError
from app.proxy.credentials import config as logins

_TYPE: Final = "kubernetes.io/dockerconfigjson"
_KEY: Final = ".dockerconfigjson"

Trial = Callable[[Login], Awaitable[bool | None]]
"""Whether a login is let in; None where that cannot be tried."""


async def examine_pull_secret(path: Path, hosts: Sequence[Host], tried: Trial) -> tuple[list[Check], list[str]]:
    """Looks at a Secret in YAML or JSON, or at the `config.json` in it; and the passwords that it holds."""
    servers = " ".join(f"--server {host.text}" for host in hosts) or "--server HOST:PORT"
    make = f"edge-registry pull-secret NAME {servers} --user NAME --password-stdin"
    try:
        config = logins.parse(_config(await asyncio.to_thread(path.read_text, encoding="utf-8")))
    except OSError as exc:
        return [failed("file", f"{path} cannot be read: {exc.strerror or exc}", f"ls -l {path}")], []
    except (ValueError, StartError) as exc:
        return [failed("file", f"{path}: {exc}", make)], []
    checks = [ok("file", f"{path} is a pull secret for {listed(list(config.auths)) or 'nobody'}")]
    found = {host.text: login for host in hosts if (login := _login(config, host.text, checks, make)) is not None}
    checks += [_missing(host, list(config.auths), make) for host in hosts if host.text not in found]
    for login in dict.fromkeys(found.values()):
        checks.append(_verdict(login, [host for host, one in found.items() if one == login], await tried(login), make))
    if not hosts:
        checks.append(
            warning(
                "servers",
                "it is not known which servers are ours",
                "edge-registry doctor --host HOST:PORT, for each of them",
            )
        )
    return checks, [login.password for login in found.values()]


def _login(config: logins.Config, host: str, checks: list[Check], make: str) -> Login | None:
    try:
        login = config.login(host)
    except ValueError as exc:
        checks.append(failed(host, f"its entry {exc}", make))
        return None
    return None if login is None else Login(login.username, login.password)


def _missing(host: Host, there: Sequence[str], make: str) -> Check:
    return failed(host.text, f"it holds no login for {host.text}, but for {listed(there) or 'nobody'}", make)


def _verdict(login: Login, hosts: Sequence[str], let_in: bool | None, make: str) -> Check:
    where = listed(hosts)
    if let_in is None:
        again = "edge-registry doctor --url URL, with a registry that runs"
        return warning("login", f"the login of {login.user} for {where} was not tried", again)
    if let_in:
        return ok("login", f"the login of {login.user} for {where} works")
    return failed("login", f"the registry refuses the login of {login.user} for {where}", make)


def _config(text: str) -> bytes:
    """The `config.json` of what a file holds. Raises ValueError, StartError."""
    document = documents.parse(text, "it")
    if not isinstance(document, Mapping):
        raise ValueError("it is no pull secret")
    if document.get("kind") != "Secret":
        return json.dumps(document).encode()
    if document.get("type") != _TYPE:
        raise ValueError(f"its type is {str(document.get('type'))[:60]}, and pods pull with {_TYPE}")
    return _field(document)


def _field(secret: Mapping[str, Any]) -> bytes:
    encoded, plain = secret.get("data") or {}, secret.get("stringData") or {}
    if isinstance(plain, Mapping) and isinstance(plain.get(_KEY), str):
        return str(plain[_KEY]).encode()
    if not isinstance(encoded, Mapping) or not isinstance(encoded.get(_KEY), str):
        raise ValueError(f"it has no {_KEY}")
    try:
        return base64.b64decode(encoded[_KEY], validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"{_KEY} is not base64") from None
