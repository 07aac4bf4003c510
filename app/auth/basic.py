"""The `Authorization` header: from bytes nobody has checked to a user and a password."""

import base64
from dataclasses import dataclass, field
from typing import Final

LONGEST: Final = 4096
"""The most bytes of a header that are looked at."""


class Malformed(ValueError):
    """A header that is no Basic credentials; the message names no part of it."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user's name and password, the latter as the UTF-8 bytes that bcrypt hashes; `repr` does not show it."""

    user: str
    password: bytes = field(repr=False)


def parse(authorization: bytes) -> Credentials | None:
    """The credentials in the value of one header; None for `Basic Og==`, which is how podman says that it has none.

    Raises Malformed for another scheme, anything but strict base64 of `user:password`, no user, a NUL anywhere, a
    control character in the user, or more than LONGEST bytes.
    """
    if len(authorization) > LONGEST:
        raise Malformed("the header is too long")
    scheme, _, encoded = authorization.strip(b" \t").partition(b" ")
    if scheme.lower() != b"basic":
        raise Malformed("the scheme is not Basic")
    try:
        raw = base64.b64decode(encoded.strip(b" "), validate=True)
    except ValueError:
        raise Malformed("not base64") from None  # its message could quote the secret
    if raw == b":":
        return None
    return _split(raw)


def text(raw: bytes) -> str:
    """UTF-8 where it is that, else Latin-1: old clients and old files hold either."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _split(raw: bytes) -> Credentials:
    user, colon, password = text(raw).partition(":")
    if not colon or not user:
        raise Malformed("no user")
    if "\0" in password or not user.isprintable():
        raise Malformed("control characters")
    return Credentials(user, password.encode())
