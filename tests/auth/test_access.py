"""Access: who may do what."""

import itertools
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from pydantic import ValidationError

from app.auth.access import Access, Action, Anonymous
from app.auth.caller import Caller
from app.auth.settings import AuthSettings, RuleSettings
from app.oci.errors import Denied, Unauthorized
from tests.auth.test_patterns import naive

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
        (False, None, set(Action) - {Action.ADMIN}),
        (False, "push", set(Action) - {Action.ADMIN}),
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


def rule(users: str, repositories: str, actions: str) -> RuleSettings:
    return RuleSettings.model_validate(
        {"users": users.split(), "repositories": repositories.split(), "actions": actions.split()}
    )


def ruled(*rules: RuleSettings, users: bool = True, anonymous: Anonymous | None = None) -> Access:
    return Access(realm="r", users=users, anonymous=anonymous, rules=rules)


SITE = ruled(
    rule("alice", "**", "pull push delete catalog"),
    rule("*", "docker.io/library/* team/**", "pull catalog"),
    rule("ci", "team/app", "push"),
    rule("anonymous", "public/**", "pull"),
)
CI, EVE = Caller("ci"), Caller("eve")


@pytest.mark.parametrize(
    ("caller", "action", "repository", "granted"),
    [
        (ALICE, "delete", "quay.io/x/y", True),
        (CI, "push", "team/app", True),
        (CI, "push", "team/other", False),
        (CI, "delete", "team/app", False),
        (EVE, "pull", "docker.io/library/alpine", True),
        (EVE, "pull", "docker.io/grafana/grafana", False),
        (EVE, "pull", "quay.io/library/alpine", False),
        (EVE, "push", "team/app", False),
        (EVE, "pull", "public/a", True),
        (NOBODY, "pull", "public/a", True),
        (NOBODY, "pull", "team/app", False),
        (NOBODY, "push", "public/a", False),
        (EVE, "catalog", None, True),
        (NOBODY, "catalog", None, False),
    ],
)
def test_rules_grant_and_everything_else_is_refused(
    caller: Caller, action: str, repository: str | None, granted: bool
) -> None:
    assert SITE.allows(caller, Action(action), repository) is granted
    assert SITE.allows(caller, Action(action), repository) is granted, "remembered"


@pytest.mark.parametrize("action", ["push", "delete"])
def test_who_may_push_or_delete_may_pull(action: str) -> None:
    """Clients ask whether a blob is there before they push it; a 403 there would end every push."""
    access = ruled(rule("ci", "team/app", action))
    assert access.allows(CI, Action.PULL, "team/app")
    assert not access.allows(CI, Action.PULL, "team/other")


def test_logging_in_loses_no_right_that_anybody_has() -> None:
    for access in (ruled(rule("bob", "b", "pull"), anonymous="pull"), ruled(rule("anonymous", "a", "pull"))):
        assert access.allows(NOBODY, Action.PULL, "a")
        assert access.allows(EVE, Action.PULL, "a")


def test_a_user_called_like_everybody_is_nobody_special() -> None:
    access = ruled(rule("*", "a", "push"), rule("bob", "b", "push"))
    for name in ("*", "anonymous"):
        assert not access.allows(Caller(name), Action.PUSH, "b")
    assert not access.allows(NOBODY, Action.PUSH, "a")


def test_a_refused_pull_is_a_challenge_without_credentials_and_denied_with_them() -> None:
    with pytest.raises(Unauthorized):
        SITE.authorize(NOBODY, Action.PULL, "team/app")
    with pytest.raises(Denied):
        SITE.authorize(EVE, Action.PULL, "secret/app")


def test_rules_close_a_registry_without_users() -> None:
    access = ruled(rule("anonymous", "docker.io/**", "pull"), users=False)
    assert access.allows(NOBODY, Action.PULL, "docker.io/library/alpine")
    for action in (Action.PULL, Action.PUSH, Action.DELETE):
        assert not access.allows(NOBODY, action, "team/app")
    with pytest.raises(Denied):
        access.authorize(NOBODY, Action.PULL, "team/app")
    assert AuthSettings(rules=[rule("anonymous", "docker.io/**", "pull")]).anonymous == "none"
    assert AuthSettings(rules=[]).anonymous is None


def test_no_repository_is_no_way_around_the_patterns() -> None:
    assert not SITE.allows(EVE, Action.PULL, None)


def test_the_catalog_shows_what_the_caller_may_pull() -> None:
    def seen(access: Access, caller: Caller) -> list[str]:
        shown = access.visible(caller)
        names = ["docker.io/library/alpine", "public/a", "secret/x", "team/app"]
        return [name for name in names if shown is None or shown(name)]

    assert seen(SITE, ALICE) == ["docker.io/library/alpine", "public/a", "secret/x", "team/app"]
    assert seen(SITE, EVE) == ["docker.io/library/alpine", "public/a", "team/app"]
    assert seen(SITE, NOBODY) == ["public/a"]
    assert Access(realm="r", users=True).visible(ALICE) is None
    assert ruled(rule("bob", "b", "pull"), anonymous="pull").visible(NOBODY) is None
    assert seen(Access(realm="r", users=True), NOBODY) == []


NAMES = ["a", "a/b", "a/b/c", "b", "docker.io/a", "docker.io/a/b"]
WHO = st.sampled_from(["alice", "bob", "*", "anonymous"])
RULES = st.lists(
    st.builds(
        RuleSettings,
        users=st.lists(WHO, min_size=1, max_size=2),
        repositories=st.lists(st.sampled_from([*NAMES, "*", "**", "a/*", "docker.io/**"]), min_size=1, max_size=2),
        actions=st.lists(st.sampled_from(["pull", "push", "delete", "catalog"]), min_size=1, max_size=2),
    ),
    max_size=3,
)


def granted_by(found: RuleSettings, caller: Caller, action: Action, repository: str | None) -> bool:
    """One rule, as its description says it."""
    who = "anonymous" in found.users or (caller.name is not None and not {"*", caller.name}.isdisjoint(found.users))
    what = action in found.actions or (action == "pull" and not {"push", "delete"}.isdisjoint(found.actions))
    if action == "catalog":
        return who and what
    where = repository and any(naive(pattern.split("/"), repository.split("/")) for pattern in found.repositories)
    return bool(who and what and where)


@settings(max_examples=300, deadline=None)
@given(RULES, st.booleans(), st.sampled_from(["none", "pull", "push", None]))
def test_the_decision_is_what_the_descriptions_say(
    rules: list[RuleSettings], users: bool, anonymous: Anonymous | None
) -> None:
    access = ruled(*rules, users=users, anonymous=anonymous)
    unruled = Access(realm="r", users=users, anonymous=anonymous or ("none" if rules else None))
    for caller in (NOBODY, ALICE, Caller("bob"), Caller("carol")):
        visible = access.visible(caller)
        for action, repository in itertools.product(Action, NAMES):
            target = None if action is Action.CATALOG else repository
            if rules:
                expected = unruled.allows(NOBODY, action, target) or any(
                    granted_by(found, caller, action, target) for found in rules
                )
            else:
                expected = unruled.allows(caller, action, target)
            assert access.allows(caller, action, target) is expected
            assert (access.grounds(caller, action, target) is not None) is expected
            if action is Action.PULL:
                assert (visible is None or visible(repository)) is expected


@pytest.mark.parametrize(
    "change",
    [{"users": []}, {"users": [""]}, {"repositories": []}, {"repositories": ["a**"]}, {"actions": []},
     {"actions": ["read"]}, {"role": "x"}],
)  # fmt: skip
def test_a_rule_that_means_nothing_is_refused(change: dict[str, Any]) -> None:
    good = {"users": ["a"], "repositories": ["a"], "actions": ["pull"]}
    AuthSettings.model_validate({"rules": [good]})
    with pytest.raises(ValidationError):
        AuthSettings.model_validate({"rules": [{**good, **change}]})
