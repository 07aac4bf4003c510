"""How a registry is dialled that somebody named by its host: as it is configured, as options say, as docker logged in."""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic import SecretStr

from app.errors import StartError
from app.proxy.credentials import open_credentials
from app.proxy.credentials.login import Credentials
from app.proxy.credentials.static import Password
from app.proxy.errors import Unreachable, UpstreamError
from app.proxy.settings import HUB, UpstreamSettings, names_of
from app.proxy.upstreams import Report
from app.transfer.copying.logins import logins_of, own_logins
from app.transfer.copying.source import Source, open_source

_UNTRUSTED: Final = "cannot be trusted"
"""What the transport says of certificates."""


@dataclass(frozen=True, slots=True)
class Options:
    """What was said for one run; each wins over the configuration. `password` goes with `username`."""

    username: str | None = None
    password: SecretStr | None = None
    logins: Path | None = None
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    verify: bool = True
    plain_http: bool = False
    token_hosts: Sequence[str] = ()
    allow_private: bool = False
    retries: int = 4


@asynccontextmanager
async def dialled(
    host: str, configured: Sequence[UpstreamSettings], options: Options, report: Report
) -> AsyncIterator[Source]:
    """The registry, once it has answered: by https, or, on this machine alone, by http where it does not speak TLS.

    Raises StartError, and UpstreamError where it does not answer.
    """
    settings = _settings(host, configured, options)
    credentials = await asyncio.to_thread(_credentials, settings, options)
    async with AsyncExitStack() as stack:
        try:
            source = await stack.enter_async_context(
                open_source(settings, credentials, report, retries=options.retries)
            )
        except Unreachable as exc:
            plain = _plain(settings, configured, options)
            if plain is None or _UNTRUSTED in exc.reason:  # a certificate that is refused is no reason to do without
                raise
            try:
                source = await stack.enter_async_context(
                    open_source(plain, credentials, report, retries=options.retries)
                )
            except UpstreamError:
                raise exc from None
        yield source


def _settings(host: str, configured: Sequence[UpstreamSettings], options: Options) -> UpstreamSettings:
    found = _configured(host, configured)
    if found is None:
        name = "docker.io" if host in HUB else host
        found = UpstreamSettings(name=name, url=f"{'http' if options.plain_http else 'https'}://{host}")
    elif options.plain_http and found.url.startswith("https:"):
        raise StartError(f"{host} is configured with https: --plain-http is not for it")
    said: dict[str, Any] = {"ca": options.ca, "certificate": options.certificate, "key": options.key}
    said = {key: value for key, value in said.items() if value is not None}
    said |= {} if options.verify else {"verify": False}
    changed: dict[str, Any] = {
        "tls": found.tls.model_copy(update=said),
        "token_hosts": [*found.token_hosts, *(name.lower() for name in options.token_hosts)],
        "allow_private": found.allow_private or options.allow_private,
    }
    return found.model_copy(update=changed)


def _configured(host: str, configured: Sequence[UpstreamSettings]) -> UpstreamSettings | None:
    """The upstream that goes by this name, or that is at this host and nothing else."""
    for upstream in configured:
        url = urlsplit(upstream.url)
        if host in names_of(upstream) or (url.netloc == host and url.path.strip("/") in ("", "v2")):
            return upstream
    return None


def _credentials(settings: UpstreamSettings, options: Options) -> Credentials:
    """Reads files, blocking. Raises StartError."""
    if options.username is not None and options.password is not None:
        return Password(options.username, options.password)
    if options.logins is not None:
        return logins_of(options.logins)
    if settings.credentials is not None:
        return open_credentials(settings.credentials)
    return own_logins(os.environ, Path.home())


def _plain(
    settings: UpstreamSettings, configured: Sequence[UpstreamSettings], options: Options
) -> UpstreamSettings | None:
    """The same without TLS, for a registry of this machine of which nothing was said: every client takes it so."""
    url = urlsplit(settings.url)
    said = options.plain_http or options.ca or options.certificate or not options.verify
    if said or url.scheme != "https" or _configured(settings.name, configured) or not _is_loopback(url.hostname or ""):
        return None
    return settings.model_copy(update={"url": f"http://{url.netloc}"})


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
