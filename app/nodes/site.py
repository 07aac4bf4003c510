"""What a node must know about a registry: its names, its authority, what it mirrors, and where its names lead."""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from app.errors import StartError

EVERYTHING: Final = "*"
"""In a list of mirrored registries: all of them."""
HUB: Final = "docker.io"

_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?", re.IGNORECASE)
_PORT: Final = re.compile(r"[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class Site:
    """One registry as its nodes see it; `hosts` are written as in image names, `192.0.2.7:5045`.

    `ca` is PEM, None for a publicly trusted certificate. `mirrors` are upstream registries that this one stands in for,
    or EVERYTHING; `mirror_url` is where it does so. `upstreams` stand for EVERYTHING where a client needs names.
    `dial_timeout` is in seconds. `addresses` maps names to the addresses that the node's hosts file shall give them.
    """

    hosts: tuple[str, ...]
    scheme: str = "https"
    ca: str | None = None
    dial_timeout: float = 2.0
    mirrors: tuple[str, ...] = ()
    mirror_url: str | None = None
    upstreams: tuple[str, ...] = ()
    addresses: Mapping[str, str] = field(default_factory=dict)

    @property
    def mirror(self) -> str:
        """The URL of the mirror: the first host, unless the site says otherwise."""
        return self.mirror_url or f"{self.scheme}://{self.hosts[0]}"

    @property
    def mirror_host(self) -> str:
        """The mirror as in image names."""
        return urlsplit(self.mirror).netloc

    def endpoints(self) -> dict[str, str]:
        """Every host that clients speak to -> its scheme; the mirror's port is one of them where there are mirrors."""
        found = dict.fromkeys(self.hosts, self.scheme)
        if self.mirrors:
            found.setdefault(self.mirror_host, urlsplit(self.mirror).scheme)
        return found

    def trusted(self) -> list[str]:
        """The hosts for which a client must be given the authority."""
        return [host for host, scheme in self.endpoints().items() if self.ca and scheme == "https"]

    def plain(self) -> list[str]:
        """The hosts that speak plain HTTP."""
        return [host for host, scheme in self.endpoints().items() if scheme == "http"]

    def mirrored(self) -> list[str]:
        """The registries by name, EVERYTHING left as it is, without the site's own hosts."""
        return [name for name in dict.fromkeys(self.mirrors) if name not in self.hosts]

    def named(self) -> list[str]:
        """The registries by name, `upstreams` in place of EVERYTHING: for clients that know no such thing."""
        spread = [one for name in self.mirrors for one in (self.upstreams if name == EVERYTHING else (name,))]
        return [name for name in dict.fromkeys(spread) if name not in self.hosts]


def parse_host(text: str) -> str:
    """A registry as in image names: a DNS name or an address, with a port where it has one. Raises StartError."""
    name, port = _split(text)
    try:
        usable = bool(name) and (name.startswith("[") or bool(_NAME.fullmatch(name)))
        if name.startswith("["):
            ipaddress.IPv6Address(name.strip("[]"))
    except ValueError:
        usable = False
    if not usable or ".." in name or (port is not None and not (_PORT.fullmatch(port) and 0 < int(port) < 65536)):
        raise StartError(f"{text[:80]!r} is no registry such as 192.0.2.7:5045; give it without scheme and path")
    return text.lower()


def parse_mirrored(text: str) -> str:
    """A registry that is mirrored, or EVERYTHING. Raises StartError."""
    return EVERYTHING if text == EVERYTHING else parse_host(text)


def parse_url(text: str) -> str:
    """The URL of a mirror: scheme and host, nothing more. Raises StartError."""
    url = urlsplit(text.rstrip("/"))
    if url.scheme not in ("http", "https") or url.path or url.query or url.fragment or "@" in url.netloc:
        raise StartError(f"{text[:80]!r} is no URL of a registry such as https://192.0.2.7:5045")
    return f"{url.scheme}://{parse_host(url.netloc)}"


def parse_name(text: str) -> str:
    """A DNS name as it may stand in a hosts file. Raises StartError."""
    if not _NAME.fullmatch(text) or ".." in text or _is_address(text) or text.lower() == "localhost":
        raise StartError(f"{text[:80]!r} is no name that a hosts file can give an address")
    return text.lower()


def parse_address(text: str) -> str:
    """An IP address in its usual spelling. Raises StartError."""
    try:
        return str(ipaddress.ip_address(text.strip().strip("[]")))
    except ValueError:
        raise StartError(f"{text[:80]!r} is no IP address") from None


def parse_certificates(text: str) -> str:
    """The certificates in a PEM text, and nothing else that it may hold, such as a key. Raises StartError."""
    try:
        found = x509.load_pem_x509_certificates(text.encode())
    except ValueError:
        raise StartError("the authority is no certificate in PEM form") from None
    return "".join(one.public_bytes(Encoding.PEM).decode() for one in found)


def authority_in(chain: Sequence[x509.Certificate]) -> str | None:
    """The PEM of the self-signed certificate in a server's chain: what its clients must trust, where it is there."""
    for one in chain:
        if one.issuer == one.subject:
            return one.public_bytes(Encoding.PEM).decode()
    return None


def _split(text: str) -> tuple[str, str | None]:
    if text.startswith("["):
        name, _, rest = text.partition("]")
        return f"{name}]", (rest[1:] if rest.startswith(":") else rest or None)
    name, colon, port = text.partition(":")
    return name, port if colon else None


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
