"""Where the names of a site lead now: given, in a file or variable, or what DNS says of a Service."""

import ipaddress
import socket
from collections.abc import Mapping

from app.errors import StartError
from app.nodes.settings import AddressSettings
from app.nodes.site import parse_address


def find(
    wanted: Mapping[str, AddressSettings], present: Mapping[str, str], environ: Mapping[str, str]
) -> dict[str, str]:
    """The names whose address is known now -> that address; `present` are the entries of the node.

    A name that cannot be looked up keeps its entry: a DNS server that is away must not take a registry away. Blocks.
    Raises StartError for an address given that is none.
    """
    found: dict[str, str] = {}
    for name, source in wanted.items():
        present_one = present.get(name)
        address = _one(source, present_one, environ) or present_one
        if address is not None:
            found[name] = address
    return found


def _one(source: AddressSettings, present: str | None, environ: Mapping[str, str]) -> str | None:
    if source.address is not None:
        return parse_address(source.address)
    if source.service is not None:
        return _looked_up(source.service, present)
    try:
        text = environ.get(source.variable or "", "") if source.file is None else source.file.read_text()
        return parse_address(text)
    except (StartError, OSError, UnicodeDecodeError):
        return None


def _looked_up(service: str, present: str | None) -> str | None:
    """The present address while it is one of the Service's, else the first, IPv4 before IPv6."""
    try:
        answers = socket.getaddrinfo(service, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return None
    addresses = {ipaddress.ip_address(str(answer[4][0]).partition("%")[0]) for answer in answers}
    ordered = [str(one) for one in sorted(addresses, key=lambda one: (one.version, int(one)))]
    if present in ordered:
        return present
    return ordered[0] if ordered else None
