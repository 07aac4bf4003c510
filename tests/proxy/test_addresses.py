"""Where an upstream cannot send us."""

import socket

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from app.proxy.addresses import AddressRefused, AddressRule, GuardedResolver, is_public


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1", "172.16.3.4", "192.168.1.1", "127.0.0.1", "127.9.9.9", "0.0.0.0", "169.254.169.254", "100.64.0.1",
        "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1",
        "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe",
        "64:ff9b::10.0.0.1", "2002:7f00:1::", "2002:a00:1::1", "2001:db8::1", "not an address",
    ],
)  # fmt: skip
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_a_public_address_is_allowed(address: str) -> None:
    assert is_public(address)


class Answers(AbstractResolver):
    """A resolver that knows one answer."""

    def __init__(self, *hosts: str) -> None:
        self.hosts = hosts

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)
            for address in self.hosts
        ]

    async def close(self) -> None:
        return None


async def resolved(rule: AddressRule, host: str, *hosts: str) -> list[str]:
    return [result["host"] for result in await GuardedResolver(rule, Answers(*hosts)).resolve(host, 443)]


async def test_private_addresses_of_a_name_are_hidden() -> None:
    rule = AddressRule(["registry.corp"], allow_private=False)
    assert await resolved(rule, "cdn.example", "10.0.0.1", "8.8.8.8") == ["8.8.8.8"]
    with pytest.raises(AddressRefused):
        await resolved(rule, "cdn.example", "10.0.0.1", "::1")


async def test_the_configured_host_may_be_private() -> None:
    rule = AddressRule(["registry.corp"], allow_private=False)
    assert await resolved(rule, "Registry.Corp.", "10.0.0.1") == ["10.0.0.1"]
    assert await resolved(AddressRule([], allow_private=True), "cdn.example", "10.0.0.1") == ["10.0.0.1"]


def test_a_literal_address_is_looked_at_before_it_is_dialled() -> None:
    rule = AddressRule(["127.0.0.1"], allow_private=False)
    rule.check_literal("127.0.0.1")
    rule.check_literal("8.8.8.8")
    rule.check_literal("a.name")
    for host in ("127.0.0.2", "169.254.169.254", "::1"):
        with pytest.raises(AddressRefused):
            rule.check_literal(host)


async def test_an_address_written_as_a_number_is_refused() -> None:
    """Of what the C library takes for an address, aiohttp refuses some spellings and resolves others."""
    rule = AddressRule(["registry.corp"], allow_private=False)
    for host in ("2130706433", "0x7f000001", "127.1"):
        with pytest.raises(OSError):  # noqa: PT011  (AddressRefused, or no such host)
            await GuardedResolver(rule).resolve(host, 80)
