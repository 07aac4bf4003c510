"""The authenticator: from an `Authorization` header to a caller."""

import asyncio
import hmac
from typing import Final

from app.auth.basic import Credentials, Malformed, parse
from app.auth.caller import Caller
from app.auth.challenge import unauthorized
from app.auth.hashing import HashingPool
from app.auth.htpasswd import LONGEST_PASSWORD
from app.auth.throttle import Throttle, origin
from app.auth.users import Users
from app.auth.verdicts import Verdicts

_NOBODY: Final = Caller(None)


class Authenticator:
    """Checks Basic credentials against `users`; without users every caller is anonymous, whatever it sends.

    A right password costs one bcrypt every `verdict_seconds`, however many requests carry it at once.
    """

    def __init__(
        self,
        users: Users | None,
        *,
        realm: str,
        verdict_seconds: float = 300,
        hashing: HashingPool | None = None,
        throttle: Throttle | None = None,
    ) -> None:
        self._users = users
        self._realm = realm
        self._verdicts = Verdicts(verdict_seconds)
        self._hashing = HashingPool() if hashing is None else hashing
        self._throttle = Throttle() if throttle is None else throttle
        self._running: dict[tuple[bytes, bytes], asyncio.Future[bool]] = {}

    def known(self, authorization: bytes | None) -> Caller | None:
        """The caller where neither bcrypt nor the file is needed to tell; None says: ask `identify`. Raises nothing."""
        if self._users is None or authorization is None:
            return _NOBODY
        try:
            credentials = parse(authorization)
        except Malformed:
            return None
        if credentials is None:
            return _NOBODY
        if not self._users.fresh:
            return None
        return self._remembered(self._users, credentials, self._verdicts.key(credentials))

    async def identify(self, authorization: bytes | None, peer: str) -> Caller:
        """The caller. `peer` is the address that guessing is counted against.

        Raises Unauthorized with a challenge for wrong or malformed credentials, TooManyRequests after too many wrong
        ones, Unavailable when too many passwords wait to be checked; the last two carry Retry-After in seconds.
        """
        if self._users is None or authorization is None:
            return _NOBODY
        try:
            credentials = parse(authorization)
        except Malformed as exc:
            raise unauthorized(self._realm, f"the credentials cannot be read: {exc}") from None
        if credentials is None:
            return _NOBODY
        await self._users.refresh()
        key = self._verdicts.key(credentials)
        if caller := self._remembered(self._users, credentials, key):
            return caller
        if len(credentials.password) > LONGEST_PASSWORD or not await self._fits(self._users, credentials, key, peer):
            raise unauthorized(self._realm, "wrong user or password")
        return Caller(credentials.user)

    def close(self) -> None:
        """Ends the threads."""
        self._hashing.close()

    def _remembered(self, users: Users, credentials: Credentials, key: bytes) -> Caller | None:
        line = users.hash_of(credentials.user)
        if line is None or not self._verdicts.holds(key, line):
            return None
        return Caller(credentials.user)

    async def _fits(self, users: Users, credentials: Credentials, key: bytes, peer: str) -> bool:
        """Whether the password is right by the file as it is when the check ends: the file may change meanwhile."""
        while True:
            line = users.hash_of(credentials.user) or users.decoy
            right = await asyncio.shield(self._check(credentials, key, line, origin(peer)))
            if hmac.compare_digest(line, users.hash_of(credentials.user) or users.decoy):
                return right

    def _check(self, credentials: Credentials, key: bytes, line: bytes, source: str) -> asyncio.Future[bool]:
        """The running check of these credentials, begun where there is none; it ends even when nobody waits for it."""
        running = self._running.get((key, line))
        if running is not None:
            return running
        user = credentials.user
        self._throttle.admit(source, user)
        future = self._hashing.submit(credentials.password, line, source)
        self._throttle.spend(source, user, key)
        self._running[key, line] = future

        def settle(done: asyncio.Future[bool]) -> None:
            del self._running[key, line]
            if done.cancelled() or not done.result():
                return
            self._verdicts.remember(key, line)
            self._throttle.refund(source, user, key)

        future.add_done_callback(settle)
        return future
