"""The TLS contexts with which an upstream is dialled."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from app.errors import StartError
from app.proxy.settings import UpstreamTlsSettings

Report = Callable[[str, str], None]
"""Takes a level (`info`, `warning`, `error`) and one line for the operator, which holds no secret."""


@dataclass(frozen=True, slots=True)
class Contexts:
    """`own` for the upstream's host as it is set; `others` for hosts that it sends us to.

    Those are always verified and never see our client certificate: both were said about one host.
    """

    own: ssl.SSLContext
    others: ssl.SSLContext


def open_contexts(settings: UpstreamTlsSettings, name: str, report: Report) -> Contexts:
    """Reads the files, blocking. `name` is the upstream's, for messages. Raises StartError.

    Verification that is off is reported once, as a warning.
    """
    own, others = _context(settings.ca, name), _context(settings.ca, name)
    if settings.certificate is not None and settings.key is not None:
        _load_pair(own, settings.certificate, settings.key, name)
    if not settings.verify:
        own.check_hostname = False
        own.verify_mode = ssl.CERT_NONE
        report("warning", f"the certificate of {name} is not verified: tls.verify is off for this upstream")
    return Contexts(own, others)


def _context(ca: Path | None, name: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    if ca is not None:
        try:
            context.load_verify_locations(ca)
        except (OSError, ValueError) as exc:  # SSLError is an OSError
            raise StartError(f"tls.ca of the upstream {name} cannot be used: {ca}: {_reason(exc)}") from None
    return context


def _load_pair(context: ssl.SSLContext, certificate: Path, key: Path, name: str) -> None:
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (OSError, ValueError) as exc:
        raise StartError(
            f"the client certificate of the upstream {name} cannot be used: {certificate} with the key {key}: "
            f"{_reason(exc)}"
        ) from None


def _no_password() -> str:
    """Called for an encrypted key, where OpenSSL would ask on the terminal."""
    raise ValueError("the key is encrypted; give it without a passphrase")


def _reason(exc: OSError | ValueError) -> str:
    if isinstance(exc, ssl.SSLError):
        return (exc.reason or "it holds no certificate in PEM").replace("_", " ").lower()
    if isinstance(exc, OSError):
        return exc.strerror or type(exc).__name__
    return str(exc)
