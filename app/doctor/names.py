"""The names of the registry: as image names begin, and what a certificate or a node port makes of them."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

NODE_PORTS: Final = range(30000, 32768)
"""The ports of Kubernetes that every node answers on, unless the cluster was set up with others."""


@dataclass(frozen=True, slots=True)
class Host:
    """A name of the registry as clients write it, `registry.example:5045`, and how they speak to it."""

    text: str
    scheme: str

    @property
    def name(self) -> str:
        """Without the port and without brackets."""
        return urlsplit(f"//{self.text}").hostname or ""

    @property
    def port(self) -> int | None:
        """The port, where there is one."""
        return urlsplit(f"//{self.text}").port

    @property
    def on_this_machine(self) -> bool:
        """Whether it leads to whoever uses it: clients take plain HTTP there."""
        return self.name == "localhost" or (is_address(self.name) and ipaddress.ip_address(self.name).is_loopback)

    @property
    def node_port(self) -> bool:
        """Whether it is a node port by way of this machine."""
        return self.on_this_machine and self.port in NODE_PORTS


def is_address(text: str) -> bool:
    """Whether it is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def covers(names: Sequence[str], host: str) -> bool:
    """Whether a certificate for `names` is one for `host`; `*` stands for one label, and never for an address."""
    if is_address(host):
        return any(is_address(name) and ipaddress.ip_address(name) == ipaddress.ip_address(host) for name in names)
    wanted = host.lower().rstrip(".")
    head, _, rest = wanted.partition(".")
    return any(name.lower() in (wanted, f"*.{rest}" if head and rest else wanted) for name in names)


def listed(words: Sequence[str], most: int = 5) -> str:
    """`a, b and 3 more`."""
    shown = ", ".join(words[:most])
    return f"{shown} and {len(words) - most} more" if len(words) > most else shown
