"""The operator's rules, compiled: who may do what with which repositories."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from app.auth.caller import Caller
from app.auth.patterns import translated
from app.auth.settings import RuleSettings

LOGGED_IN: Final = "*"
ANYBODY: Final = "anonymous"

_IMPLIES_PULL: Final = frozenset({"push", "delete", "admin"})


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; `number` counts from 1, as people count the entries of a list."""

    number: int
    users: frozenset[str]
    actions: frozenset[str]
    names: re.Pattern[str]

    def concerns(self, caller: Caller) -> bool:
        """Whether the caller is one of its users. What is granted without credentials is not lost by logging in."""
        if ANYBODY in self.users:
            return True
        return caller.name is not None and (LOGGED_IN in self.users or caller.name in self.users)

    def covers(self, action: str, repository: str | None) -> bool:
        """Whether the repository is one of its own. The catalog is the whole registry's, so that any rule may grant it;
        so is the question whether somebody is an admin of anything."""
        if repository is None:
            return action in ("catalog", "admin")
        return action == "catalog" or self.names.fullmatch(repository) is not None


class Rules:
    """All rules of a configuration. Each grants; none takes away; without any that fits, nothing is granted."""

    def __init__(self, rules: Sequence[RuleSettings]) -> None:
        self._rules = [_compiled(number, rule) for number, rule in enumerate(rules, 1)]

    def __bool__(self) -> bool:
        return bool(self._rules)

    def granting(self, caller: Caller, action: str, repository: str | None) -> Rule | None:
        """The first rule that lets `caller` do `action` to `repository`, which means nothing to the action catalog."""
        for rule in self._rules:
            if action in rule.actions and rule.concerns(caller) and rule.covers(action, repository):
                return rule
        return None

    def pullable(self, caller: Caller) -> Callable[[str], bool]:
        """Tells of a repository's name whether the caller may pull it; cheap to ask for many names."""
        patterns = [rule.names for rule in self._rules if "pull" in rule.actions and rule.concerns(caller)]
        return lambda name: any(pattern.fullmatch(name) for pattern in patterns)


def _compiled(number: int, rule: RuleSettings) -> Rule:
    actions = frozenset[str](rule.actions)
    if actions & _IMPLIES_PULL:  # clients look whether a blob is there before they push it, and at what they delete
        actions |= {"pull"}
    names = re.compile("|".join(f"(?:{translated(pattern).pattern})" for pattern in rule.repositories))
    return Rule(number, frozenset(rule.users), actions, names)
