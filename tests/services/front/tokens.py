"""A token service: Bearer tokens with a life, for users and for nobody in particular."""

import base64
import json
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from urllib.parse import parse_qs

from tests.services.front.answers import Reply, error

PATH = "/token"


@dataclass(frozen=True, slots=True)
class Issued:
    """One token that was given: to whom (None: anonymous), for which scopes, by which method and grant."""

    token: str
    user: str | None
    scopes: tuple[str, ...]
    method: str
    grant: str
    until: float


class TokenService:
    """Gives tokens at `realm` (unset: `/token` of the front) and checks them.

    `users` map names to passwords. `anonymous`: whether a token is given without a user, or for which repositories
    (patterns) such a token is good. `life`: seconds for which a token is good; `stated_life` is what is said of it, the
    same unless given. `post`: whether OAuth's POST is answered. `field`: under which name the token is given.
    `expired_status` is 401, or 403 as ECR says it. `issued` holds all that were given.
    """

    def __init__(
        self,
        users: Mapping[str, str] | None = None,
        *,
        anonymous: bool | Sequence[str] = True,
        life: float = 300.0,
        stated_life: int | None = None,
        realm: str | None = None,
        service: str = "front.example",
        post: bool = True,
        field: str = "token",
        expired_status: int = 401,
    ) -> None:
        self.users, self.anonymous = dict(users or {}), anonymous
        self.life, self.stated_life = life, stated_life
        self.realm, self.service, self.post, self.field = realm, service, post, field
        self.expired_status = expired_status
        self.issued: list[Issued] = []
        self.refused = 0
        self._lock = threading.Lock()
        self._good: dict[str, Issued] = {}
        self._refresh: dict[str, str] = {}

    def revoke(self) -> None:
        """No token that was given so far is good any more."""
        with self._lock:
            self._good.clear()

    def refresh_token(self, user: str) -> str:
        """A new identity token of this user."""
        token = secrets.token_urlsafe(16)
        with self._lock:
            self._refresh[token] = user
        return token

    def give(self, method: str, query: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """The answer to a request for a token."""
        if method == "POST" and not self.post:
            return error(404, PATH)
        asked = parse_qs(body.decode() if method == "POST" else query)
        grant = asked.get("grant_type", ["basic"])[0]
        try:
            user = self._user_of_form(asked, grant) if method == "POST" else self._user_of_header(headers)
        except KeyError:
            with self._lock:
                self.refused += 1
            return error(401, PATH)
        scopes = tuple(scope for value in asked.get("scope", []) for scope in value.split())
        return self._issue(user, scopes, method, grant, wants_refresh=_is_offline(asked))

    def _user_of_form(self, asked: Mapping[str, list[str]], grant: str) -> str:
        """Raises KeyError."""
        if grant == "refresh_token":
            return self._refresh[asked["refresh_token"][0]]
        return self._checked(asked["username"][0], asked["password"][0])

    def _user_of_header(self, headers: Mapping[str, str]) -> str | None:
        """Raises KeyError."""
        given = headers.get("authorization", "")
        if given.startswith("Basic "):
            name, _, password = base64.b64decode(given.removeprefix("Basic ")).decode().partition(":")
            return self._checked(name, password)
        if self.anonymous is False:
            raise KeyError
        return None

    def _checked(self, name: str, password: str) -> str:
        if self.users[name] != password:
            raise KeyError(name)
        return name

    def _issue(
        self, user: str | None, scopes: tuple[str, ...], method: str, grant: str, *, wants_refresh: bool
    ) -> Reply:
        token = secrets.token_urlsafe(24)
        given = Issued(token, user, scopes, method, grant, time.monotonic() + self.life)
        said = {self.field: token, "expires_in": int(self.life) if self.stated_life is None else self.stated_life}
        if wants_refresh and user is not None:
            said["refresh_token"] = self.refresh_token(user)
        with self._lock:
            self.issued.append(given)
            self._good[token] = given
        return Reply(200, {"Content-Type": "application/json"}, json.dumps(said).encode())

    def refuse(self, authorization: str | None, method: str, repository: str | None, realm: str) -> Reply | None:
        """None where the request may pass; `repository` is None for the base of the API."""
        actions = "pull" if method in ("GET", "HEAD") else "pull,push"
        challenge = f'Bearer realm="{self.realm or realm}",service="{self.service}"'
        if repository is not None:
            challenge += f',scope="repository:{repository}:{actions}"'
        if authorization is None or not authorization.startswith("Bearer "):
            return error(401, "", {"WWW-Authenticate": challenge})
        with self._lock:
            given = self._good.get(authorization.removeprefix("Bearer "))
        if given is None or given.until < time.monotonic():
            return error(self.expired_status, "", {"WWW-Authenticate": f'{challenge},error="invalid_token"'})
        if not self._covers(given, repository, actions):
            return error(401, "", {"WWW-Authenticate": f'{challenge},error="insufficient_scope"'})
        return None

    def _covers(self, given: Issued, repository: str | None, actions: str) -> bool:
        if repository is None:
            return True
        open_to_all = ("*",) if isinstance(self.anonymous, bool) else self.anonymous
        if given.user is None and not any(fnmatchcase(repository, pattern) for pattern in open_to_all):
            return False
        wanted = set(actions.split(","))
        scopes = (scope.rsplit(":", 1) for scope in given.scopes)
        return any(name == f"repository:{repository}" and wanted <= set(may.split(",")) for name, may in scopes)


def _is_offline(asked: Mapping[str, list[str]]) -> bool:
    return asked.get("offline_token") == ["true"] or asked.get("access_type") == ["offline"]
