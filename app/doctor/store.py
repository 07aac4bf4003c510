"""The store: is it there, does it let us in, and does it do what the registry relies on."""

import asyncio
import os
import secrets
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from app.doctor.report import Check, failed, ok, warning
from storage import AccessDenied, Capabilities, Driver, Finding, NoStore, StorageError, Unavailable
from storage.settings import S3Settings

_PATIENCE: Final = aiohttp.ClientTimeout(total=10)
_HANDSHAKE: Final = 5.0
_CLOCK: Final = "timedatectl set-ntp true"
_FINDINGS: Final[dict[str, str]] = {
    "conditional put": "use a store with conditional writes (MinIO since 2024), or do without registry.immutable_tags",
    "stale signatures": "use a store that refuses expired signatures, or do without garbage collection",
    "clock": _CLOCK,
    "lock": "put storage.filesystem.root on a disk of this machine, where flock works",
    "conditional create": "put storage.filesystem.root on a disk of this machine",
    "fences": "put storage.filesystem.root on a disk of this machine",
    "space": "make room on the disk of storage.filesystem.root",
}
"""What to do about the findings of a probe that the registry lives with; all others are fatal."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A store that may be used, or None, and what opening it showed."""

    driver: Driver | None
    capabilities: Capabilities | None
    checks: tuple[Check, ...]


@asynccontextmanager
async def open_bucket(driver: Driver, s3: S3Settings) -> AsyncIterator[Opened]:
    """A bucket, looked at from the outside in; it is not made where it is not there."""
    place = s3.endpoint or f"AWS ({s3.region})"
    try:
        try:
            await driver.start()
            await driver.list("upkeep/probe/", limit=1)
        except AccessDenied:
            await driver.list("upkeep/probe/", limit=1)  # an answer to HEAD has no body that would say why
        capabilities = await driver.probe()
    except StorageError as exc:
        distrusted = await _distrusted(s3) if isinstance(exc, Unavailable) else None
        yield Opened(None, None, (distrusted,) if distrusted else _bucket_trouble(exc, s3, place))
    else:
        found = [
            ok("reach", f"{place} answers"),
            ok("credentials", "they are accepted, and may list, write and delete"),
            ok("bucket", f"{s3.bucket} is there"),
            *(_from_probe(finding) for finding in capabilities.findings),
        ]
        yield Opened(driver, capabilities, tuple(found))
    finally:
        await driver.close()


@asynccontextmanager
async def open_folder(driver: Driver, root: Path) -> AsyncIterator[Opened]:
    """A folder, which is not made where it is not there."""
    trouble = await asyncio.to_thread(_folder_trouble, root)
    if trouble is not None:
        yield Opened(None, None, (trouble,))
        return
    try:
        await driver.start()
        capabilities = await driver.probe()
    except StorageError as exc:
        yield Opened(None, None, (failed("folder", str(exc), _own(root)),))
    else:
        checks = (ok("folder", f"{root} is there"), *map(_from_probe, capabilities.findings))
        yield Opened(driver, capabilities, checks)
    finally:
        await driver.close()


async def examine_redirect(driver: Driver, s3: S3Settings) -> Check:
    """Whether what clients are redirected to can be fetched from here."""
    name, place = "redirect", s3.public_endpoint or s3.endpoint or "AWS"
    key, data = f"upkeep/probe/{secrets.token_hex(8)}/redirect", secrets.token_bytes(32)
    fix = "set storage.s3.public_endpoint to a URL under which clients reach the store, or storage.s3.redirect: false"
    try:
        await driver.put(key, data)
        try:
            url = await driver.presign(key, lifetime=60)
            if url is None:
                return warning(name, "this store has no presigned URLs", "set storage.s3.redirect: false")
            status, body = await _fetched(url, s3)
        finally:
            await driver.delete(key)
    except StorageError as exc:
        return failed(name, str(exc), fix)
    except (aiohttp.ClientError, TimeoutError, OSError) as exc:
        return failed(name, f"{place} cannot be reached from here: {_reason(exc)}", fix)
    if status != 200 or body != data:
        return failed(name, f"{place} answered {status} to a presigned URL", fix)
    return ok(name, f"a presigned URL at {place} can be fetched from here")


async def _fetched(url: str, s3: S3Settings) -> tuple[int, bytes]:
    context: ssl.SSLContext | bool = True
    if url.startswith("https:") and s3.ca is not None:  # as clients would: the store's own authority is theirs, too
        context = await asyncio.to_thread(ssl.create_default_context, cafile=str(s3.ca))
    async with (
        aiohttp.ClientSession(timeout=_PATIENCE) as session,
        session.get(URL(url, encoded=True), ssl=context, allow_redirects=False) as response,
    ):
        return response.status, await response.read()


async def _distrusted(s3: S3Settings) -> Check | None:
    """What is wrong with the store's certificate, where it has one and that is in the way."""
    parts = urlsplit(s3.endpoint or "")
    if parts.scheme != "https" or not s3.verify:
        return None
    try:
        context = await asyncio.to_thread(ssl.create_default_context)
        if s3.ca is not None:
            await asyncio.to_thread(context.load_verify_locations, s3.ca)
        async with asyncio.timeout(_HANDSHAKE):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port or 443, ssl=context)
        writer.close()
    except ssl.SSLCertVerificationError as exc:
        fix = "set storage.s3.ca to the PEM file of the authority that signed it"
        return failed("reach", f"the certificate of {s3.endpoint} is not trusted: {exc.verify_message}", fix)
    except (OSError, TimeoutError, ValueError):
        return None
    return None


def _bucket_trouble(exc: StorageError, s3: S3Settings, place: str) -> tuple[Check, ...]:
    reached = ok("reach", f"{place} answers")
    text = str(exc)
    match exc:
        case NoStore() if s3.create_bucket:
            let_in = ok("credentials", "they are accepted")
            make = "edge-registry setup bucket, or leave it to storage.s3.create_bucket at the next start"
            return reached, let_in, warning("bucket", f"{s3.bucket} is not there yet", make)
        case NoStore():
            fix = f"edge-registry setup bucket --bucket {s3.bucket}"
            return reached, failed("bucket", f"there is no bucket {s3.bucket} at {place}", fix)
        case AccessDenied() if "clock" in text:
            return reached, failed("clock", text, _CLOCK)
        case AccessDenied():
            return reached, failed("credentials", text, _credentials_fix(text, s3))
        case Unavailable():
            fix = "set storage.s3.endpoint to where the store answers, and start the store"
            return (failed("reach", f"{place}: {text}", fix),)
    return reached, failed("requests", text, "set storage.s3.endpoint to the API of an S3 store, not to its console")


def _credentials_fix(text: str, s3: S3Settings) -> str:
    if "check the user's policy" in text:
        return f"edge-registry setup bucket --bucket {s3.bucket}, which gives the user the policy that it needs"
    if s3.access_key is None:
        return "set storage.s3.access_key and storage.s3.secret_key"
    return "set storage.s3.access_key and storage.s3.secret_key to those that `edge-registry setup bucket` made"


def _from_probe(finding: Finding) -> Check:
    line = finding.line.removeprefix(f"{finding.name}: ")
    if finding.ok:
        return ok(finding.name, line)
    fix = _FINDINGS.get(finding.name)
    if fix is not None:
        return warning(finding.name, line, fix)
    return failed(finding.name, line, "keep the registry in another store: this one loses what it confirmed")


def _folder_trouble(root: Path) -> Check | None:
    try:
        if root.is_dir():
            if os.access(root, os.R_OK | os.W_OK | os.X_OK):
                return None
            return failed("folder", f"{root.absolute()} cannot be written by this user", _own(root))
        if root.exists():
            return failed("folder", f"{root.absolute()} is no folder", "set storage.filesystem.root to a folder")
    except OSError as exc:
        return failed("folder", f"{root.absolute()}: {exc.strerror}", _own(root))
    parent = next(one for one in root.absolute().parents if one.exists())
    if not os.access(parent, os.W_OK | os.X_OK):
        return failed("folder", f"{root.absolute()} is not there, and {parent} cannot be written", _own(parent))
    return warning("folder", f"{root.absolute()} is not there yet", "edge-registry serve, which makes it")


def _own(folder: Path) -> str:
    return f"chown {os.geteuid()} {folder.absolute()}"


def _reason(exc: BaseException) -> str:
    number = exc.os_error.errno if isinstance(exc, aiohttp.ClientConnectorError) and hasattr(exc, "_os_error") else None
    return os.strerror(number) if number and number > 0 else type(exc).__name__
