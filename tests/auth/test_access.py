"""Access: who may do what."""

import pytest
from pydantic import ValidationError

from app.auth.access import Access, Action
from app.auth.caller import Caller
from app.auth.settings import AuthSettings
from app.oci.errors import Denied, Unauthorized

NOBODY = Caller(None)
ALICE = Caller("alice")


def allowed(access: Access, caller: Caller) -> set[Action]:
    granted = set()
    for action in Action:
        try:
            access.authorize(caller, action, None if action is Action.CATALOG else "a/b")
        except (Denied, Unauthorized):
            continue
        granted.add(action)
    return granted


@pytest.mark.parametrize(
    ("users", "anonymous", "granted"),
    [
        (True, None, set()),
        (True, "none", set()),
        (True, "pull", {Action.PULL, Action.CATALOG}),
        (True, "push", {Action.PULL, Action.PUSH, Action.CATALOG}),
        (False, None, set(Action)),
        (False, "push", set(Action)),
        (False, "pull", {Action.PULL, Action.CATALOG}),
        (False, "none", set()),
    ],
)
def test_what_callers_without_credentials_may_do(users: bool, anonymous: str | None, granted: set[Action]) -> None:
    assert allowed(Access(realm="r", users=users, anonymous=anonymous), NOBODY) == granted


@pytest.mark.parametrize("anonymous", [None, "none", "pull", "push"])
def test_a_user_may_do_everything(anonymous: str | None) -> None:
    assert allowed(Access(realm="r", users=True, anonymous=anonymous), ALICE) == set(Action)


def test_a_refusal_that_credentials_would_lift_is_a_challenge() -> None:
    with pytest.raises(Unauthorized) as refusal:
        Access(realm="Edge Registry", users=True, anonymous="pull").authorize(NOBODY, Action.PUSH, "a")
    assert refusal.value.headers == {"WWW-Authenticate": 'Basic realm="Edge Registry"'}


def test_without_users_a_refusal_asks_for_no_password_that_nobody_has() -> None:
    with pytest.raises(Denied):
        Access(realm="r", users=False, anonymous="pull").authorize(NOBODY, Action.PUSH, "a")


def test_ping_challenges_even_where_anonymous_pull_is_allowed() -> None:
    with pytest.raises(Unauthorized) as refusal:
        Access(realm="r", users=True, anonymous="pull").may_ping(NOBODY)
    assert refusal.value.headers == {"WWW-Authenticate": 'Basic realm="r"'}
    Access(realm="r", users=True).may_ping(ALICE)


def test_ping_is_open_where_there_are_no_users() -> None:
    Access(realm="r", users=False, anonymous="pull").may_ping(NOBODY)


@pytest.mark.parametrize("realm", ['a"b', "a\\b", "a\r\nX: y", "a\n", "é", ""])
def test_a_realm_cannot_break_the_header_it_stands_in(realm: str) -> None:
    with pytest.raises(ValidationError):
        AuthSettings(realm=realm)
    assert AuthSettings(realm="Edge [1]").realm == "Edge [1]"
