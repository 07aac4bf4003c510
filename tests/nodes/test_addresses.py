"""Where names lead: DNS, files, variables, and what stays when none of them answers."""

import socket
from pathlib import Path

import pytest

from app.errors import StartError
from app.nodes import addresses
from app.nodes.settings import AddressSettings


def find(
    source: dict[str, str], present: dict[str, str] | None = None, environ: dict[str, str] | None = None
) -> dict[str, str]:
    return addresses.find({"r.lan": AddressSettings.model_validate(source)}, present or {}, environ or {})


def test_a_service_is_looked_up_and_one_that_nobody_knows_keeps_its_address() -> None:
    assert find({"service": "localhost"})["r.lan"] in ("127.0.0.1", "::1")
    assert find({"service": "nobody.invalid"}) == {}
    assert find({"service": "nobody.invalid"}, {"r.lan": "10.0.0.1"}) == {"r.lan": "10.0.0.1"}


def test_a_service_of_several_addresses_keeps_the_present_one_while_it_is_among_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, 0)) for one in ("10.0.0.9", "10.0.0.10")]
    monkeypatch.setattr(addresses.socket, "getaddrinfo", lambda *_, **__: answers)  # type: ignore[attr-defined]
    assert find({"service": "r"}) == {"r.lan": "10.0.0.9"}
    assert find({"service": "r"}, {"r.lan": "10.0.0.10"}) == {"r.lan": "10.0.0.10"}
    assert find({"service": "r"}, {"r.lan": "10.0.0.11"}) == {"r.lan": "10.0.0.9"}


def test_a_file_or_a_variable_may_be_empty_for_a_while_but_what_is_given_must_be_an_address(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert find({"file": str(tmp_path / "empty")}, {"r.lan": "10.0.0.1"}) == {"r.lan": "10.0.0.1"}
    assert find({"variable": "X"}, environ={"X": "fd00:0::1"}) == {"r.lan": "fd00::1"}
    assert find({"variable": "X"}) == {}
    with pytest.raises(StartError):
        find({"address": "10.0.0"})
