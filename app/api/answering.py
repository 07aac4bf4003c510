"""How every request of the plain ASGI applications ends: identified before, answered whatever happens, logged after."""

from collections.abc import Awaitable
from typing import Final

from app.api.exchange import ClientGone, Exchange
from app.auth.authenticator import Authenticator
from app.oci.errors import RegistryError
from app.telemetry.logs import Level, Log

CLIENT_GONE: Final = 499
"""Logged for a client that went away before it was answered."""


async def identify(exchange: Exchange, authenticator: Authenticator) -> None:
    """Says in the exchange who sends the request. Raises what the authenticator raises."""
    text = exchange.header(b"authorization")
    credentials = text.encode("latin-1") if text else None
    known = authenticator.known(credentials)
    exchange.caller = known or await authenticator.identify(credentials, exchange.peer)


async def answer(exchange: Exchange, serving: Awaitable[None], log: Log) -> str | None:
    """Answers, whatever happens; returns what went wrong, for the log. An answer that has begun is cut."""
    try:
        await serving
    except RegistryError as exc:
        if not exchange.status:
            await exchange.fail(exc)
        return f"{exc.code}: {exc.message}"
    except ClientGone:
        return "the client went away"
    except Exception as exc:
        if exchange.status:
            return f"cut off: {type(exc).__name__}: {exc}"
        log.error("failed", exc_info=True)  # noqa: G201  (structlog: the level is said, as elsewhere)
        await exchange.fail(RegistryError())
        return type(exc).__name__
    return None


def note(log: Log, level: Level, exchange: Exchange, seconds: float, error: str | None) -> None:
    """One line for one request."""
    getattr(log, level)(
        "request",
        method=exchange.method,
        path=exchange.scope["path"],
        status=exchange.status or CLIENT_GONE,
        seconds=round(seconds, 4),
        received=exchange.received,
        sent=exchange.sent,
        user=exchange.caller.name,
        peer=exchange.peer,
        agent=exchange.header(b"user-agent"),
        id=exchange.id,
        error=error,
    )
