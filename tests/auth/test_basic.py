"""The Authorization header, right and hostile."""

import base64

import pytest
from hypothesis import given, strategies as st

from app.auth.basic import LONGEST, Credentials, Malformed, parse
from tests.auth.conftest import basic


def test_user_and_password_come_out() -> None:
    assert parse(basic("alice", "se:cret ü")) == Credentials("alice", "se:cret ü".encode())
    assert parse(b"bAsIc  " + basic("alice", "x")[6:] + b" ") == Credentials("alice", b"x")
    assert parse(basic("alice", "")) == Credentials("alice", b"")


def test_latin_1_of_old_clients_means_the_same_user_and_password() -> None:
    assert parse(basic("jürgen", "größe", "latin-1")) == parse(basic("jürgen", "größe"))


def test_empty_user_and_password_as_podman_sends_them_are_no_credentials() -> None:
    assert parse(b"Basic Og==") is None


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"Basic",
        b"Basic ",
        b"Bearer Og==",
        b"Basic Og",
        b"Basic Og==Og==",
        b"Basic !!!!",
        b"Basic O\ng==",
        basic("", "password"),
        b"Basic " + base64.b64encode(b"nocolon"),
        basic("alice", "a\0b"),
        basic("ali\0ce", "a"),
        basic("ali\nce", "a"),
        b"Basic " + base64.b64encode(b"a:" + b"x" * LONGEST),
    ],
)
def test_what_is_no_basic_header_is_malformed(header: bytes) -> None:
    with pytest.raises(Malformed):
        parse(header)


def test_a_password_is_in_no_repr_and_in_no_error() -> None:
    assert "canary" not in repr(parse(basic("alice", "canary")))
    for header in (b"Bearer canary", b"Basic canary!", b"Basic " + base64.b64encode(b"canary"), basic("\n", "canary")):
        with pytest.raises(Malformed) as error:
            parse(header)
        assert "canary" not in str(error.value)
        assert error.value.__suppress_context__ or error.value.__context__ is None


@given(st.binary(max_size=5000))
def test_any_bytes_are_malformed_or_credentials(raw: bytes) -> None:
    for header in (raw, b"Basic " + raw, b"Basic " + base64.b64encode(raw)):
        try:
            credentials = parse(header)
        except Malformed:
            continue
        assert credentials is None or (credentials.user and ":" not in credentials.user)


@given(st.text(st.characters(codec="utf-8"), max_size=40), st.text(st.characters(codec="utf-8"), max_size=40))
def test_every_usable_name_and_password_survives(user: str, password: str) -> None:
    if user and user.isprintable() and ":" not in user and "\0" not in password:
        assert parse(basic(user, password)) == Credentials(user, password.encode())
