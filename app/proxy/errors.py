"""What an upstream may do instead of answering.

Our tree::

    UpstreamError              kind, for the stale policy; a reason that is safe to show
    ├── Missing                a definite 404: it does not have that
    ├── Denied                 it refuses our credentials, also after a refresh
    ├── RateLimited            429; `retry_after` in seconds
    ├── Unreachable            no connection, no TLS, no answer, a broken transfer; also an open breaker
    ├── Failing                5xx or 408
    └── Portal                 an answer that no registry gives: HTML, a wrong digest, a forbidden redirect
"""

from typing import ClassVar

from app.proxy.settings import FailureKind


class UpstreamError(Exception):
    """The root. `reason` names the upstream and is safe to show to clients and logs: it holds no secret and no query."""

    kind: ClassVar[FailureKind]

    def __init__(self, reason: str, *, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after


class Missing(UpstreamError):
    """A definite no."""

    kind = "missing"


class Denied(UpstreamError):
    """Our credentials do not suffice."""

    kind = "denied"


class RateLimited(UpstreamError):
    """Too many requests; `retry_after` seconds where it said so."""

    kind = "rate_limited"


class Unreachable(UpstreamError):
    """No connection, no answer in time, or one that broke off."""

    kind = "network"


class Failing(UpstreamError):
    """It answers that it cannot."""

    kind = "server_error"


class Portal(UpstreamError):
    """Something that is not this registry answers in its place, or it answers nonsense."""

    kind = "captive_portal"
