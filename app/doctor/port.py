"""One address at which the registry listens: free, or taken, and by whom."""

import asyncio
import errno
import os
import socket
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

import aiohttp

from app.doctor.report import Check, failed, ok

_PATIENCE: Final = aiohttp.ClientTimeout(total=3)
_ANYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104  (compared, not bound)


@dataclass(frozen=True, slots=True)
class Place:
    """An address of the configuration: `key` is `http` or `listeners.0`."""

    key: str
    host: str
    port: int
    tls: bool

    @property
    def url(self) -> str:
        """Where this machine reaches it."""
        host = _ANYWHERE.get(self.host, self.host)
        return f"{'https' if self.tls else 'http'}://{f'[{host}]' if ':' in host else host}:{self.port}"


async def examine_port(place: Place) -> tuple[Check, str | None]:
    """What is at the address, and the URL of the edge registry there, None where there is none."""
    name = f"{place.host}:{place.port}"
    if place.port == 0:
        return ok(name, "any free port, chosen at the start"), None
    trouble = await asyncio.to_thread(_try, place)
    if trouble is None:
        return ok(name, "free: no registry runs here"), None
    setting = "http.port" if place.key == "http" else f"{place.key}.port"
    if trouble == errno.EADDRINUSE:
        version = await identify(place.url)
        if version is not None:
            return ok(name, f"served by an edge registry ({version})"), place.url
        find = f"end the program that `ss -ltnp 'sport = :{place.port}'` names, or set another {setting}"
        return failed(name, "taken by a program that is no edge registry", find), None
    if trouble == errno.EACCES:
        return failed(
            name, "only root may listen on ports below 1024 here", f"set {setting} to one above, as 5045"
        ), None
    host = "http.host" if place.key == "http" else f"{place.key}.host"
    return failed(name, f"cannot listen there: {_said(trouble)}", f"set {host} to an address of this machine"), None


async def identify(url: str) -> str | None:
    """The version of the edge registry at a URL, None where something else, or nothing, answers."""
    try:
        async with (
            aiohttp.ClientSession(timeout=_PATIENCE) as session,
            # Who is there is asked, and nothing told: whether it is to be trusted is looked at elsewhere.
            session.get(f"{url.rstrip('/')}/openapi.json", ssl=False, allow_redirects=False) as response,
        ):
            if response.status != 200:
                return None
            about = (await response.json(content_type=None))["info"]
            return str(about["version"]) if about["title"] == "Edge Registry" else None
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError, TypeError):
        return None


def _try(place: Place) -> int | None:
    """Binds as the server would, and lets go again. The number of the error, None where it went well."""
    try:
        family = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)[0][0]
        with ExitStack() as stack:
            sock = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((place.host, place.port))
    except OSError as exc:
        return exc.errno or errno.EADDRNOTAVAIL
    return None


def _said(number: int) -> str:
    return os.strerror(number) if number > 0 else "the name of the host is not known"
