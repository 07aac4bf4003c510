"""The names of a server certificate: DNS names and addresses, checked."""

import ipaddress
import re
from collections.abc import Sequence

from cryptography import x509

from app.errors import StartError

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")


def subject_names(names: Sequence[str]) -> list[x509.GeneralName]:
    """Each name once, in order, as a certificate holds it. Raises StartError for none, and for what is no name."""
    parsed = list(dict.fromkeys(_parse(name.strip()) for name in names))
    if not parsed:
        raise StartError("a certificate needs at least one name or address")
    return parsed


def _parse(name: str) -> x509.GeneralName:
    if "%" in name:  # an interface of this machine means nothing to a client
        raise StartError(f"{name!r} names an interface; give the address without it")
    try:
        return x509.IPAddress(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        pass
    try:
        ascii_name = name.rstrip(".").encode("idna" if not name.isascii() else "ascii").decode().lower()
    except UnicodeError:
        raise StartError(f"{name!r} is no DNS name") from None
    labels = ascii_name.removeprefix("*.").split(".")
    numeric = labels[-1].isdigit()  # 10.0.0: clients would take it for an address
    if numeric or len(ascii_name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise StartError(f"{name!r} is neither a DNS name nor an address; give it without scheme and port")
    return x509.DNSName(ascii_name)
