"""The decision whether a caller may do something; nothing else in the program decides it."""

from enum import StrEnum
from typing import Final, Literal

from app.auth.caller import Caller
from app.auth.challenge import unauthorized
from app.oci.errors import Denied

Anonymous = Literal["none", "pull", "push"]


class Action(StrEnum):
    """What a request wants to do with a repository, or, for CATALOG, with the list of all of them."""

    PULL = "pull"
    PUSH = "push"
    DELETE = "delete"
    CATALOG = "catalog"


_EVERYTHING: Final = frozenset(Action)
_GRANTED: Final = {
    "none": frozenset[Action](),
    "pull": frozenset({Action.PULL, Action.CATALOG}),
    "push": frozenset({Action.PULL, Action.PUSH, Action.CATALOG}),
}


class Access:
    """Users may do everything; callers without a name may do what `anonymous` grants.

    `users` says whether there is a users' file. Without one nobody can log in, so None and "push" both grant everything
    there: else nobody could ever delete. With one, None grants nothing.
    """

    def __init__(self, *, realm: str, users: bool, anonymous: Anonymous | None = None) -> None:
        self._realm = realm
        self._users = users
        if not users and anonymous in (None, "push"):
            self._anonymous = _EVERYTHING
        else:
            self._anonymous = _GRANTED[anonymous or "none"]

    def authorize(self, caller: Caller, action: Action, repository: str | None) -> None:
        """Returns when `caller` may do `action` on `repository` (None for CATALOG).

        Raises Unauthorized with a challenge where credentials would help, Denied where they would not. The answer does
        not depend on whether the repository exists.
        """
        if self.allows(caller, action, repository):
            return
        if caller.anonymous and self._users:
            raise unauthorized(self._realm)
        raise Denied(detail={"action": action.value, "repository": repository})

    def may_ping(self, caller: Caller) -> None:
        """Returns when `/v2/` may answer 200; raises Unauthorized with a challenge when it must not.

        Docker and podman look for a challenge only here: where there are users, the answer to a caller without
        credentials is a 401 even when it may pull, or a later push would never send any.
        """
        if caller.anonymous and self._users:
            raise unauthorized(self._realm)

    def allows(self, caller: Caller, action: Action, repository: str | None) -> bool:
        """The rule of this release. `repository` is not looked at yet: rules per repository belong here."""
        del repository
        return not caller.anonymous or action in self._anonymous
