"""Addresses that an upstream may send us to: public ones, unless the operator named the host."""

import re
import socket
from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final

from aiohttp import ThreadedResolver
from aiohttp.abc import AbstractResolver, ResolveResult

_TRANSLATED: Final = IPv6Network("64:ff9b::/96")
"""IPv6 addresses that a gateway turns into the IPv4 address in their last 32 bits (RFC 6052)."""
_HOST: Final = re.compile(r"[A-Za-z0-9_.:-]{1,253}")


class AddressRefused(OSError):
    """A host whose addresses are all private, loopback, link-local or otherwise not public."""


def is_host(text: str) -> bool:
    """Whether this may be a host: a name as DNS carries it, or an address. What else upstreams write is not shown."""
    return _HOST.fullmatch(text) is not None


def is_public(address: str) -> bool:
    """Whether an IP address, as text, is one of the open internet. False for what is no address."""
    try:
        ip = ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, IPv6Address):
        inner = _inner(ip)
        if inner is not None and not _global(inner):
            return False
        if ip.ipv4_mapped is not None:
            return True
    return _global(ip)


def _inner(ip: IPv6Address) -> IPv4Address | None:
    """The IPv4 address to which packets for this one may end up going."""
    if ip in _TRANSLATED:
        return IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour


def _global(ip: IPv4Address | IPv6Address) -> bool:
    return ip.is_global and not (ip.is_multicast or (ip.is_reserved and isinstance(ip, IPv4Address)))


class AddressRule:
    """Which hosts may be dialled: those that the operator named, and others at public addresses only."""

    def __init__(self, named: Collection[str], *, allow_private: bool) -> None:
        """`named` are host names or addresses without a port."""
        self._named = {host.lower().rstrip(".") for host in named}
        self._allow_private = allow_private

    def trusts(self, host: str) -> bool:
        """Whether this host may have any address."""
        return self._allow_private or host.lower().rstrip(".") in self._named

    def check_literal(self, host: str) -> None:
        """Raises AddressRefused for an IP address that may not be dialled; names are left to the resolver."""
        try:
            ip_address(host)
        except ValueError:
            return
        if not (self.trusts(host) or is_public(host)):
            raise AddressRefused("a private address")


class GuardedResolver(AbstractResolver):
    """Resolves names in threads, and hides addresses that the rule does not allow.

    It is asked for each new connection, so that a name whose address changes after a look is no way around the rule.
    """

    def __init__(self, rule: AddressRule, resolver: AbstractResolver | None = None) -> None:
        self._rule = rule
        self._resolver = resolver or ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses that may be dialled. Raises AddressRefused where there are others only, OSError otherwise."""
        try:
            found = await self._resolver.resolve(host, port, family)
        except UnicodeError as exc:  # a label that is empty, or longer than DNS can say
            raise socket.gaierror(socket.EAI_NONAME, "no host name") from exc
        allowed = found if self._rule.trusts(host) else [result for result in found if is_public(result["host"])]
        if found and not allowed:
            raise AddressRefused("a private address")
        return allowed

    async def close(self) -> None:
        await self._resolver.close()
