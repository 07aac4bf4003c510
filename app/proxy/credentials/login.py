"""What an upstream is logged in to with, and the contract of those who know it."""

from dataclasses import dataclass, field
from typing import Final, Protocol

from app.proxy.errors import UpstreamError

IDENTITY_TOKEN: Final = "<token>"  # noqa: S105
"""The user name that says that the password is an identity (refresh) token, as docker's credential helpers write it."""


@dataclass(frozen=True, slots=True)
class Login:
    """A user and a password; where the user is IDENTITY_TOKEN, the password is a refresh token."""

    username: str
    password: str = field(repr=False)


class Credentials(Protocol):
    """A source of logins for one upstream."""

    identity: str
    """Names the credential in cache keys and logs; no secret."""

    async def login(self, host: str, *, renew: bool = False) -> Login | None:
        """What to log in to `host` (with its port, where it has one) with; None: anonymously.

        `renew` says that what was given last was refused: the source is asked afresh. Raises Denied when the source
        fails, Unreachable when its network does.
        """
        ...


def about(host: str, failure: UpstreamError) -> UpstreamError:
    """The failure of a source that several callers share, as an error of its own that names the host."""
    return type(failure)(f"{host}: {failure.reason}", retry_after=failure.retry_after)
