"""The server's TLS context, which takes a new certificate while connections are open."""

import asyncio
import os
import ssl
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509

from app.errors import StartError

Report = Callable[[str, str], None]
"""Takes a level (`info`, `warning`, `error`) and one line for the operator, which holds no secret."""

_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"  # for TLS 1.2; those of 1.3 are all good
_SOON: Final = timedelta(days=14)


def silent(level: str, message: str) -> None:
    """A report to nobody."""


@dataclass(frozen=True, slots=True)
class _Pair:
    """The bytes of both files at one moment."""

    certificate: bytes
    key: bytes


class ReloadingContext:
    """`context` serves the pair of files as they were when they last fitted together.

    New handshakes get the new certificate; open connections go on. A pair that is broken, half written or missing
    leaves the old one in place and is reported once.
    """

    def __init__(self, certificate: Path, key: Path, *, report: Report = silent, every: float = 2.0) -> None:
        """Reads both files, blocking; `every` is how often `watch` looks, in seconds. Raises StartError."""
        self._certificate = certificate
        self._key = key
        self._report = report
        self._every = every
        self._trouble = ""
        try:
            self._pair = self._read()
            expiry = _try(self._pair)
        except (OSError, ValueError) as exc:
            raise StartError(
                f"the certificate {certificate} with the key {key} cannot be used: {_reason(exc)}"
            ) from None
        self.context = _context()
        _load(self.context, self._pair)
        self._tell_expiry(expiry)

    async def watch(self) -> None:
        """Looks at the files for ever; cancel it to end."""
        while True:
            await asyncio.sleep(self._every)
            await self.reload()

    async def reload(self) -> bool:
        """Looks at the files now; True when the context serves a new pair. Raises nothing."""
        try:
            pair = await asyncio.to_thread(self._read)
            if pair == self._pair:
                self._trouble = ""
                return False
            expiry = await asyncio.to_thread(_try, pair)
            # Here and not in the thread: OpenSSL must not begin a handshake on a context that is being changed. The
            # bytes are in memory and were tried, so it takes a fraction of a millisecond and leaves no half pair.
            _load(self.context, pair)
        except (OSError, ValueError) as exc:
            if (reason := _reason(exc)) != self._trouble:
                self._trouble = reason
                self._report("error", f"{self._certificate} cannot be used, the old certificate stays: {reason}")
            return False
        self._pair = pair
        self._trouble = ""
        self._report("info", f"the certificate {self._certificate} was read again; it ends on {expiry:%Y-%m-%d}")
        self._tell_expiry(expiry)
        return True

    def _read(self) -> _Pair:
        return _Pair(self._certificate.read_bytes(), self._key.read_bytes())

    def _tell_expiry(self, expiry: datetime) -> None:
        if expiry - datetime.now(UTC) < _SOON:
            self._report("warning", f"the certificate {self._certificate} ends on {expiry:%Y-%m-%d %H:%M} UTC")


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    return context


def _try(pair: _Pair) -> datetime:
    """Loads the pair into a context that is thrown away; returns when it ends. Raises ssl.SSLError, ValueError."""
    leaf = x509.load_pem_x509_certificate(pair.certificate)
    _load(_context(), pair)
    return leaf.not_valid_after_utc


def _load(context: ssl.SSLContext, pair: _Pair) -> None:
    with _as_file(pair.certificate) as certificate, _as_file(pair.key) as key:
        context.load_cert_chain(certificate, key, password=_no_password)


def _no_password() -> str:
    """Called for an encrypted key, where OpenSSL would ask on the terminal."""
    raise ValueError("the key is encrypted; give it without a passphrase")


@contextmanager
def _as_file(data: bytes) -> Iterator[str]:
    """A path under which OpenSSL finds these bytes: in memory where possible, so that no key touches another disk."""
    if hasattr(os, "memfd_create") and os.path.isdir("/proc/self/fd"):
        with open(os.memfd_create("pem"), "wb") as memory:
            memory.write(data)
            memory.flush()
            yield f"/proc/self/fd/{memory.fileno()}"
    else:
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            yield file.name


def _reason(exc: OSError | ValueError) -> str:
    if isinstance(exc, ssl.SSLError):
        return (exc.reason or str(exc)).replace("_", " ").lower()
    if isinstance(exc, OSError):
        return f"{exc.strerror or exc}{f': {exc.filename}' if exc.filename else ''}"
    return str(exc)
