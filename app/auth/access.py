"""The decision whether a caller may do something; nothing else in the program decides it."""

from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import Final, Literal

from app.auth.caller import Caller
from app.auth.challenge import unauthorized
from app.auth.rules import Rules
from app.auth.settings import RuleSettings
from app.oci.errors import Denied

Anonymous = Literal["none", "pull", "push"]


class Action(StrEnum):
    """What a request wants to do with a repository, or, for CATALOG, with the list of all of them.

    ADMIN is bringing whole archives of images in and out, by HTTP; without a repository: with any at all.
    """

    PULL = "pull"
    PUSH = "push"
    DELETE = "delete"
    CATALOG = "catalog"
    ADMIN = "admin"


_EVERYTHING: Final = frozenset(Action)
_NO_ADMIN: Final = _EVERYTHING - {Action.ADMIN}
_GRANTED: Final = {
    "none": frozenset[Action](),
    "pull": frozenset({Action.PULL, Action.CATALOG}),
    "push": frozenset({Action.PULL, Action.PUSH, Action.CATALOG}),
}
_REMEMBERED: Final = 4096
"""Verdicts by rules that are kept; each has a repository's name in it."""


class Access:
    """What `anonymous` grants to callers without a name, everybody may do. Beside that, users may do everything or,
    where there are rules, what a rule grants them; a rule may name callers without credentials, too.

    `users` says whether there is a users' file. Without one nobody can log in, so None (where there are no rules) and
    "push" both grant everything there: else nobody could ever delete. With one, None grants nothing. ADMIN is granted to
    nobody without a name, unless nobody can log in and the listener is of this machine alone (`local`).
    """

    def __init__(
        self,
        *,
        realm: str,
        users: bool,
        anonymous: Anonymous | None = None,
        rules: Sequence[RuleSettings] = (),
        asks: bool = True,
        local: bool = False,
    ) -> None:
        """`asks`: whether credentials are asked for; behind an open door nobody is challenged."""
        self._realm = realm
        self._challenges = users and asks
        self._rules = Rules(rules)
        if not users and (anonymous == "push" or (anonymous is None and not self._rules)):
            self._anonymous = _EVERYTHING if local else _NO_ADMIN
        else:
            self._anonymous = _GRANTED[anonymous or "none"]
        self._ruled = lru_cache(_REMEMBERED)(self._rules.granting)

    def authorize(self, caller: Caller, action: Action, repository: str | None) -> None:
        """Returns when `caller` may do `action` on `repository` (None for CATALOG, and for ADMIN in general).

        Raises Unauthorized with a challenge where credentials would help, Denied where they would not. The answer does
        not depend on whether the repository exists.
        """
        if self.allows(caller, action, repository):
            return
        if caller.anonymous and self._challenges:
            raise unauthorized(self._realm)
        raise Denied(detail={"action": action.value, "repository": repository})

    def may_ping(self, caller: Caller) -> None:
        """Returns when `/v2/` may answer 200; raises Unauthorized with a challenge when it must not.

        Docker and podman look for a challenge only here: where there are users, the answer to a caller without
        credentials is a 401 even when it may pull, or a later push would never send any.
        """
        if caller.anonymous and self._challenges:
            raise unauthorized(self._realm)

    def allows(self, caller: Caller, action: Action, repository: str | None) -> bool:
        """Whether `caller` may do `action` on `repository`, which what is cached of an upstream begins with its name."""
        if action in self._anonymous:
            return True
        if not self._rules:
            return not caller.anonymous
        return self._ruled(caller, action, repository) is not None

    def visible(self, caller: Caller) -> Callable[[str], bool] | None:
        """Tells of a repository's name whether the caller may pull it; None where it may pull every one."""
        if Action.PULL in self._anonymous or (not self._rules and not caller.anonymous):
            return None
        return self._rules.pullable(caller)

    def grounds(self, caller: Caller, action: Action, repository: str | None) -> str | None:
        """What lets the caller do it, in words for the operator; None where nothing does."""
        if not self.allows(caller, action, repository):
            return None
        if action in self._anonymous:
            return "auth.anonymous grants it to everybody"
        rule = self._ruled(caller, action, repository)
        return "without rules, users may do everything" if rule is None else f"rule {rule.number} of auth.rules"
