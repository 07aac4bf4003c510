"""The Authorization header: which one a place wants, kept so that it is sent unasked, and renewed once when refused."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

from yarl import URL

from app.proxy.challenge import Challenge
from app.proxy.credentials.login import IDENTITY_TOKEN, Credentials, Login
from app.proxy.errors import Denied
from app.proxy.realms import trusted_realm
from app.proxy.tokens import Asked, Refusals, Token, Tokens, basic
from app.registry.bucket import Recent

_PLACES: Final = 4096
_LONGEST_SCOPE: Final = 1024


@dataclass(frozen=True, slots=True)
class Place:
    """Where a header is sent: an origin and a repository, or "" for the catalog of all.

    `ours`: the upstream itself, which may see its credentials.
    """

    origin: URL
    repository: str
    ours: bool


@dataclass(frozen=True, slots=True)
class Grant:
    """A header, and where it came from; `fresh`: its token was fetched for this very request."""

    header: str = field(repr=False)
    challenge: Challenge = field(repr=False)
    login: Login | None
    fresh: bool
    token: Token | None = None


class Nobody:
    """The credentials of a host that an upstream redirects to: none."""

    identity = "anonymous"

    async def login(self, host: str, *, renew: bool = False) -> Login | None:
        return None


class Authorization:
    """What the places of one upstream want, as their challenges said."""

    def __init__(self, credentials: Credentials, tokens: Tokens, *, name: str, token_hosts: Collection[str]) -> None:
        """`name` is the upstream's, for reasons."""
        self._credentials = credentials
        self._tokens = tokens
        self._name = name
        self._token_hosts = token_hosts
        self._nobody = Nobody()
        self._refusals = Refusals()
        self._known: Recent[Place, Challenge] = Recent(_PLACES)

    async def known(self, place: Place) -> Grant | None:
        """What this place wanted before, if it did. Raises UpstreamError."""
        challenge = self._known.get(place)
        return None if challenge is None else await self._granted(place, challenge, None)

    async def answered(self, place: Place, challenges: Sequence[Challenge]) -> Grant | None:
        """The answer to challenges; None where there is none that we can give. Raises UpstreamError."""
        challenge = _chosen(challenges)
        if challenge is None:
            return None
        grant = await self._granted(place, challenge, None)
        if grant is not None:
            self._known.put(place, challenge)
        return grant

    async def renewed(self, place: Place, refused: Grant, challenges: Sequence[Challenge]) -> Grant | None:
        """Another answer than the one that was refused; None where there is no other. Raises UpstreamError."""
        if refused.fresh:
            credentials, host = self._source(place)
            if refused.login is None or await credentials.login(host, renew=True) == refused.login:
                return None
        said = _chosen(challenges)
        if said is not None and _wanted(said) != _wanted(refused.challenge):  # the place has changed its mind
            self._known.drop(place)
            return await self.answered(place, challenges)
        return await self._granted(place, refused.challenge, refused)

    async def _granted(self, place: Place, challenge: Challenge, refused: Grant | None) -> Grant | None:
        credentials, host = self._source(place)
        if challenge.scheme == "basic":
            login = await credentials.login(host, renew=refused is not None)
            if login is not None and refused is not None and login == refused.login:
                self._refusals.note(place, login)
                return None
            if login is None:
                return None
            self._refusals.check(place, login, self._name)
            if login.username == IDENTITY_TOKEN:
                raise Denied(f"{self._name} wants a user and a password, and has an identity token only")
            return Grant(basic(login), challenge, login, fresh=False)
        asked = self._asked(place, challenge, credentials)
        kept = self._tokens.kept(asked)
        token = await self._tokens.fetch(asked, credentials, host, refused=None if refused is None else refused.token)
        return Grant(f"Bearer {token.value}", challenge, token.login, fresh=token is not kept, token=token)

    def _asked(self, place: Place, challenge: Challenge, credentials: Credentials) -> Asked:
        realm = trusted_realm(challenge.parameters["realm"], place.origin, self._token_hosts, self._name)
        scope = f"repository:{place.repository}:pull" if place.repository else "registry:catalog:*"
        said = challenge.parameters.get("scope", "")
        # With a login we ask for what we need and nothing else: the token goes to whoever named the scope.
        if credentials.identity == self._nobody.identity and 0 < len(said) <= _LONGEST_SCOPE:
            scope = said
        return Asked(realm, challenge.parameters.get("service", ""), scope, credentials.identity)

    def _source(self, place: Place) -> tuple[Credentials, str]:
        """Who logs in to a place, and the host with its port, where it has one, that they are asked for."""
        origin = place.origin
        host = origin.host_subcomponent or ""
        return (
            self._credentials if place.ours else self._nobody,
            host if origin.is_default_port() else f"{host}:{origin.port}",
        )


def _chosen(challenges: Sequence[Challenge]) -> Challenge | None:
    """The challenge to answer: Bearer before Basic, as other clients do."""
    for challenge in challenges:
        if challenge.scheme == "bearer" and challenge.parameters.get("realm"):
            return challenge
    return next((challenge for challenge in challenges if challenge.scheme == "basic"), None)


def _wanted(challenge: Challenge) -> tuple[str, str, str]:
    """What makes two challenges the same: a refusal adds an error and may leave out the scope."""
    parameters = challenge.parameters
    return challenge.scheme, parameters.get("realm", ""), parameters.get("service", "")
