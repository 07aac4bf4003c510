"""WWW-Authenticate headers as registries write them, and as they should not."""

import time

import pytest
from hypothesis import given, strategies as st

from app.proxy.challenge import parse_challenges


def parsed(*headers: str) -> list[tuple[str, dict[str, str]]]:
    return [(challenge.scheme, dict(challenge.parameters)) for challenge in parse_challenges(headers)]


def test_docker_hubs_challenge() -> None:
    header = (
        'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/x:pull"'
    )
    assert parsed(header) == [
        (
            "bearer",
            {
                "realm": "https://auth.docker.io/token",
                "service": "registry.docker.io",
                "scope": "repository:library/x:pull",
            },
        )
    ]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("BASIC Realm=plain", [("basic", {"realm": "plain"})]),
        ('Basic realm="a, b=\\"c\\" \\\\"', [("basic", {"realm": 'a, b="c" \\'})]),
        ('Basic realm="x", Bearer realm="y",scope="a,b"',
         [("basic", {"realm": "x"}), ("bearer", {"realm": "y", "scope": "a,b"})]),
        ('Bearer realm = "y" , service= z', [("bearer", {"realm": "y", "service": "z"})]),
        ('Bearer service=,realm="y"', [("bearer", {"service": "", "realm": "y"})]),
        ("Negotiate", [("negotiate", {})]),
        ('Bearer realm="first",realm="second"', [("bearer", {"realm": "first"})]),
        (", ,Basic realm=x", [("basic", {"realm": "x"})]),
        ('realm="of no scheme"', []),
        ("", []),
    ],
)  # fmt: skip
def test_what_is_allowed_is_read(header: str, expected: list[tuple[str, dict[str, str]]]) -> None:
    assert parsed(header) == expected


def test_a_token68_hides_no_challenge_behind_it() -> None:
    schemes = dict(parsed('Negotiate YIIabc==, Bearer realm="https://r/t"'))
    assert schemes["bearer"] == {"realm": "https://r/t"}


def test_several_headers_are_read_in_order() -> None:
    assert [scheme for scheme, _ in parsed("Basic realm=x", "Bearer realm=y")] == ["basic", "bearer"]


@given(st.lists(st.text(max_size=200), max_size=3))
def test_no_header_makes_it_fail(headers: list[str]) -> None:
    for challenge in parse_challenges(headers):
        assert challenge.scheme


def test_a_long_header_costs_no_time() -> None:
    begun = time.perf_counter()
    for hostile in ('a="\\' * 100_000, 'a="' * 100_001, "a= " * 100_000, "\\" * 300_000, ("a" * 50 + "=") * 5_000):
        parse_challenges([hostile])
    assert time.perf_counter() - begun < 2
