"""Online garbage collection, explored step by step: every interleaving, crash and pause of publishers and collectors.

A step is one request to the store, or requests of one kind. A process may stop for ever after any step (a crash) or wait
as long as it likes, also while a day passes (a suspended laptop). A day stands for every lifetime of the protocol:
signatures, intents, tombstones and the grace period end with it; the real ones are ordered (app/registry/lifetimes.py).

The invariant, in every state: the repository of a visible manifest has a link to a copy whose bytes exist, and what is
derived from each link that a collector must find.

Each step says in `does` which function of the program does it: test_gc_model.py checks that those exist, and
test_publishing.py, test_deletion.py, test_collection.py and tests/upkeep that they make their requests in this order.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

Local = Any
Act = Callable[["Store", Local], tuple["Store", Local, bool]]
"""Takes the store and what the process remembers; returns both, and whether the process goes on."""

HOME: Final = "A"
AWAY: Final = "B"


@dataclass(frozen=True, slots=True)
class Store:
    """All that the bucket says of one digest. Every fact carries the day on which it was written."""

    day: int = 0
    data: frozenset[tuple[str, int]] = frozenset({("X", -1)})
    """(copy, day)"""
    links: frozenset[tuple[str, str, int]] = frozenset({(HOME, "X", -1)})
    """(repository, copy, day)"""
    holders: frozenset[tuple[str, str, int]] = frozenset({(HOME, "X", -1)})
    """(repository, copy, day): derived, and written before each link"""
    tombstones: frozenset[tuple[str, str, int]] = frozenset()
    """(repository, or "" for the copy itself, copy, day)"""
    intents: frozenset[tuple[str, str, int]] = frozenset()
    """(publisher, copy, day)"""
    manifests: frozenset[tuple[str, str]] = frozenset({("old", HOME)})
    """(name, repository)"""

    @property
    def consistent(self) -> bool:
        """The invariant."""
        copies = {copy for copy, _ in self.data}
        held = {repository for repository, copy, _ in self.links if copy in copies}
        return all(repository in held for _, repository in self.manifests)

    def without(self, kind: str, gone: Callable[[Any], bool]) -> "Store":
        """Without the facts of a kind for which `gone` holds."""
        facts: dict[str, Any] = {kind: frozenset(fact for fact in getattr(self, kind) if not gone(fact))}
        return replace(self, **facts)


@dataclass(frozen=True, slots=True)
class Step:
    """One request. `does` is `module.function` below app; None for what the program must not do, and for time."""

    name: str
    act: Act
    does: str | None


Process = Sequence[Step]

EMPTY: Final = Store(data=frozenset(), links=frozenset(), holders=frozenset(), manifests=frozenset())
UNUSED: Final = Store(manifests=frozenset())
LEFT_OVER: Final = Store(
    links=frozenset({(HOME, "X", -1)}),
    holders=frozenset({(HOME, "X", -1), (AWAY, "X", -1)}),
    manifests=frozenset({("old", HOME)}),
)
"""A holder of AWAY without its link, as a delete leaves it that broke off."""
SHARED: Final = Store(
    data=frozenset({("X", 0)}),
    links=frozenset({(HOME, "X", 0), (AWAY, "X", 0)}),
    holders=frozenset({(HOME, "X", 0), (AWAY, "X", 0)}),
    manifests=frozenset(),
)
"""A copy that an upload has just linked in HOME, and that AWAY, a cache, links as well."""


@dataclass(frozen=True, slots=True)
class Publisher:
    """PUT of a manifest into `repository`. The switches break the protocol, one rule each."""

    name: str
    repository: str = HOME
    intent_first: bool = True
    fenced: bool = True
    release_early: bool = False

    def steps(self) -> Process:
        looks = [
            Step("put_intent", self._put_intent, "registry.publishing.intent"),
            Step("drop_tombstoned", self._drop_tombstoned, "registry.publishing.tombstoned"),
        ]
        ends = [
            Step("publish", self._publish, "registry.manifests.Manifests._publish"),
            Step("release", self._release, "registry.publishing._release"),
        ]
        return [
            Step("sign", self._sign, "registry.manifests.Manifests._publish"),
            Step("resolve", self._resolve, "registry.publishing.first_linked"),
            *(looks if self.intent_first else reversed(looks)),
            *(reversed(ends) if self.release_early else ends),
        ]

    def _sign(self, store: Store, _: Local) -> tuple[Store, Local, bool]:
        return store, (store.day, ()), True

    def _resolve(self, store: Store, local: Local) -> tuple[Store, Local, bool]:
        copies = tuple(sorted(copy for repository, copy, _ in store.links if repository == self.repository))
        return (
            store,
            (local[0], copies),
            bool(copies),
        )  # without one: MANIFEST_BLOB_UNKNOWN, and the client pushes again

    def _put_intent(self, store: Store, local: Local) -> tuple[Store, Local, bool]:
        ours = {(self.name, copy, store.day) for copy in local[1]}
        return replace(store, intents=store.intents | ours), local, True

    def _drop_tombstoned(self, store: Store, local: Local) -> tuple[Store, Local, bool]:
        dead = {copy for scope, copy, _ in store.tombstones if scope in ("", self.repository)}
        alive = tuple(copy for copy in local[1] if copy not in dead)
        return store, (local[0], alive), bool(alive)

    def _publish(self, store: Store, local: Local) -> tuple[Store, Local, bool]:
        if self.fenced and store.day != local[0]:
            return store, local, False
        return replace(store, manifests=store.manifests | {(self.name, self.repository)}), local, True

    def _release(self, store: Store, local: Local) -> tuple[Store, Local, bool]:
        return store.without("intents", lambda fact: fact[0] == self.name), local, True


@dataclass(frozen=True, slots=True)
class Mounter:
    """A mount (or a push that links an older copy) from HOME into AWAY, then a manifest there that trusts the link.

    Into HOME it is the push of a blob that HOME holds already: link and holder are written again, and so are young.
    """

    name: str
    into: str = AWAY
    fenced: bool = True
    trusting: bool = True
    """Whether a manifest follows."""

    def steps(self) -> Process:
        sign, resolve, put_intent, _, _, release = Publisher(self.name).steps()
        return [
            replace(sign, does="registry.publishing.adopt"),
            replace(resolve, does="registry.publishing.linked"),
            put_intent,
            Step("drop_tombstoned", self._drop_tombstoned, "registry.publishing.tombstoned"),
            Step("put_holder", self._put_holder, "registry.publishing.bind"),
            Step("put_link", self._put_link, "registry.publishing.bind"),
            release,
            *(Publisher(f"{self.name}-manifest", self.into).steps() if self.trusting else []),
        ]

    def _drop_tombstoned(self, store: Store, local: Local) -> tuple[Store, Local, bool]:
        dead = {copy for _, copy, _ in store.tombstones}  # of the copy, of its source and of where it goes
        alive = tuple(copy for copy in local[1] if copy not in dead)
        return store, (local[0], alive), bool(alive)

    def _put_holder(self, store: Store, local: Local) -> tuple[Store, Local, bool]:
        facts = {(self.into, copy, store.day) for copy in local[1]}
        return replace(store, holders=_renewed(store.holders, facts)), local, True

    def _put_link(self, store: Store, local: Local) -> tuple[Store, Local, bool]:
        if self.fenced and store.day != local[0]:
            return store, local, False
        facts = {(self.into, copy, store.day) for copy in local[1]}
        return replace(store, links=_renewed(store.links, facts)), local, True


@dataclass(frozen=True, slots=True)
class Uploader:
    """Bytes under a new name, then the link, then a manifest. The fence is older than the bytes.

    With `again` its last request is repeated: the bytes are there, and were linked before. That ends with the upload.
    """

    name: str
    fenced: bool = True
    again: bool = False

    def steps(self) -> Process:
        complete = Step("complete", self._complete, "registry.uploads.Uploads._receive")
        return [
            Step("demand_young", self._demand_young, "registry.sessions.demand_young") if self.again else complete,
            Step("put_holder", self._put_holder, "registry.publishing.bind"),
            Step("put_link", self._bind, "registry.publishing.bind"),
            *Publisher(f"{self.name}-manifest").steps(),
        ]

    def _complete(self, store: Store, _: Local) -> tuple[Store, Local, bool]:
        return replace(store, data=store.data | {(self.name, store.day)}), store.day, True

    def _demand_young(self, store: Store, _: Local) -> tuple[Store, Local, bool]:
        return store, store.day, store.day == 0

    def _put_holder(self, store: Store, signed: Local) -> tuple[Store, Local, bool]:
        return replace(store, holders=_renewed(store.holders, {(HOME, self.name, store.day)})), signed, True

    def _bind(self, store: Store, signed: Local) -> tuple[Store, Local, bool]:
        if self.fenced and store.day != signed:
            return store, signed, False
        return replace(store, links=_renewed(store.links, {(HOME, self.name, store.day)})), signed, True


@dataclass(frozen=True, slots=True)
class Adopter:
    """Links bytes that lie where another registry wrote them, whether or not they were linked before, then a manifest."""

    name: str = "d"
    copy: str = "X"

    def steps(self) -> Process:
        return [
            Step("sign", self._sign, "transfer.adoption.blobs.AdoptedBlobs.bind"),
            Step("put_intent", self._put_intent, "registry.publishing.intent"),
            Step("drop_tombstoned", self._drop_tombstoned, "registry.publishing.tombstoned"),
            Step("put_holder", self._put_holder, "registry.publishing.bind"),
            Step("put_link", self._put_link, "registry.publishing.bind"),
            Step("release", self._release, "registry.publishing._release"),
            *Publisher(f"{self.name}-manifest").steps(),
        ]

    def _sign(self, store: Store, _: Local) -> tuple[Store, Local, bool]:
        return store, store.day, True

    def _put_intent(self, store: Store, local: Local) -> tuple[Store, Local, bool]:
        return replace(store, intents=store.intents | {(self.name, self.copy, store.day)}), local, True

    def _drop_tombstoned(self, store: Store, local: Local) -> tuple[Store, Local, bool]:
        return store, local, not any(copy == self.copy for _, copy, _ in store.tombstones)

    def _put_holder(self, store: Store, local: Local) -> tuple[Store, Local, bool]:
        return replace(store, holders=_renewed(store.holders, {(HOME, self.copy, store.day)})), local, True

    def _put_link(self, store: Store, signed: Local) -> tuple[Store, Local, bool]:
        if store.day != signed:
            return store, signed, False
        return replace(store, links=_renewed(store.links, {(HOME, self.copy, store.day)})), signed, True

    def _release(self, store: Store, local: Local) -> tuple[Store, Local, bool]:
        return store.without("intents", lambda fact: fact[0] == self.name), local, True


@dataclass(frozen=True, slots=True)
class Deleter:
    """Collects a copy; with a repository it is the DELETE of a blob, which takes away that repository's link alone.

    `grace` false is an eviction: fresh links do not keep a copy. With `seen` it knows of this repository's link alone, and
    any other keeps the copy, as does a young holder of another. `adopted`: the bytes are another registry's, and stay.
    `keeps_holder`: uploads come into the repository. The other switches break the protocol, one rule each.
    """

    copy: str = "X"
    repository: str = ""
    grace: bool = True
    adopted: bool = False
    seen: str = ""
    keeps_holder: bool = False
    young_holders: bool = True
    tombstone: bool = True
    second_look: bool = True
    intents_first: bool = True
    fenced: bool = True
    fenced_holders: bool = True

    def steps(self) -> Process:
        whole = "registry.deletion.delete_unneeded" if self.repository else "registry.collection.Collector"
        elsewhere = "proxy.clearing.Clearing._may_be_linked_elsewhere"
        intents = Step("no_intent", self._no_intent, "registry.intents.Intents.naming")
        links = Step("find_links", self._find_links, whole if self.repository else f"{whole}._linked")
        manifests = Step("no_manifest", self._no_manifest, "registry.needs.StoredNeeds.named")
        second = [intents, links, manifests] if self.intents_first else [links, manifests, intents]
        first = [intents, links, manifests] if self.repository or not self.second_look else [intents]
        return [
            *([Step("no_young_holder", self._no_young_holder, elsewhere)] if self.seen and self.young_holders else []),
            Step("sign", self._sign, whole if self.repository else f"{whole}.collect"),
            *first,
            *([Step("put_tombstone", self._put_tombstone, self._does("_bury"))] if self.tombstone else []),
            *(second if self.second_look else []),
            Step("delete_links", self._delete_links, self._does("_delete")),
            *([] if self.keeps_holder else [Step("delete_holders", self._delete_holders, self._does("_delete"))]),
            *(
                []
                if self.repository or self.adopted
                else [Step("delete_bytes", self._delete_bytes, self._does("_delete"))]
            ),
        ]

    def _does(self, part: str) -> str:
        return "registry.deletion.delete_unneeded" if self.repository else f"registry.collection.Collector.{part}"

    def _sign(self, store: Store, _: Local) -> tuple[Store, Local, bool]:
        return store, (store.day, frozenset()), True

    def _no_young_holder(self, store: Store, local: Local) -> tuple[Store, Local, bool]:
        others = {day for name, copy, day in store.holders if copy == self.copy and name != self.seen}
        return store, local, not any(day >= store.day for day in others)

    def _no_intent(self, store: Store, local: Local) -> tuple[Store, Local, bool]:
        return store, local, not any(copy == self.copy for _, copy, _ in store.intents)

    def _find_links(self, store: Store, local: Local) -> tuple[Store, Local, bool]:
        """What the derived keys say, as far as it is true: nothing else is known of who links a copy."""
        said = {name for name, copy, _ in store.holders if copy == self.copy}
        linked = {(name, day) for name, copy, day in store.links if copy == self.copy and name in said}
        if self.repository:
            return store, (local[0], frozenset({self.repository})), True
        fresh = self.grace and any(day >= store.day for _, day in linked)
        names = frozenset(name for name, _ in linked)
        return store, (local[0], names), not fresh and not (self.seen and names - {self.seen})

    def _no_manifest(self, store: Store, local: Local) -> tuple[Store, Local, bool]:
        return store, local, not any(name in local[1] for _, name in store.manifests)

    def _put_tombstone(self, store: Store, local: Local) -> tuple[Store, Local, bool]:
        if self.fenced and store.day != local[0]:
            return store, local, False
        return replace(store, tombstones=store.tombstones | {(self.repository, self.copy, store.day)}), local, True

    def _delete_links(self, store: Store, local: Local) -> tuple[Store, Local, bool]:
        if self.fenced and store.day != local[0]:
            return store, local, False
        return store.without("links", lambda fact: fact[1] == self.copy and fact[0] in local[1]), local, True

    def _delete_holders(self, store: Store, local: Local) -> tuple[Store, Local, bool]:
        if self.fenced and self.fenced_holders and store.day != local[0]:
            return store, local, False
        return store.without("holders", lambda fact: fact[1] == self.copy and fact[0] in local[1]), local, True

    def _delete_bytes(self, store: Store, local: Local) -> tuple[Store, Local, bool]:
        if self.fenced and store.day != local[0]:
            return store, local, False
        return store.without("data", lambda fact: fact[0] == self.copy), local, True


@dataclass(frozen=True, slots=True)
class OrphanSweeper:
    """Bytes without a link, which were there a day ago. It lists the repositories one after the other."""

    copy: str
    tombstone: bool = True

    def steps(self) -> Process:
        doom = "upkeep.garbage.orphans.Orphans.doom"
        ends = [
            Step("put_tombstone", self._put_tombstone, doom),
            Step("no_intent", self._no_intent, doom),
        ]
        return [
            Step("sign", self._sign, doom),
            *(ends if self.tombstone else []),
            *(
                Step(f"no_link_{name}", self._no_link(name), "upkeep.garbage.survey.Survey.run")
                for name in (AWAY, HOME)
            ),
            Step("delete_orphan", self._delete_orphan, "upkeep.garbage.orphans.Orphans.delete"),
        ]

    def _sign(self, store: Store, _: Local) -> tuple[Store, Local, bool]:
        return store, store.day, any(copy == self.copy and day < store.day for copy, day in store.data)

    def _put_tombstone(self, store: Store, signed: Local) -> tuple[Store, Local, bool]:
        if store.day != signed:
            return store, signed, False
        return replace(store, tombstones=store.tombstones | {("", self.copy, store.day)}), signed, True

    def _no_intent(self, store: Store, signed: Local) -> tuple[Store, Local, bool]:
        return store, signed, not any(copy == self.copy for _, copy, _ in store.intents)

    def _no_link(self, name: str) -> Act:
        def act(store: Store, signed: Local) -> tuple[Store, Local, bool]:
            return store, signed, not any((where, copy) == (name, self.copy) for where, copy, _ in store.links)

        return act

    def _delete_orphan(self, store: Store, signed: Local) -> tuple[Store, Local, bool]:
        if store.day != signed:  # its tombstone may have ended
            return store, signed, False
        return store.without("data", lambda fact: fact[0] == self.copy), signed, True


@dataclass(frozen=True, slots=True)
class HolderSweeper:
    """A derived key without its link, a day after it was written. The switches break the protocol, one rule each."""

    repository: str = AWAY
    copy: str = "X"
    tombstone: bool = True

    def steps(self) -> Process:
        whole = "upkeep.garbage.sweep.Sweep.holders"
        no_link = Step("no_link", self._no_link, whole)
        no_intent = Step("no_intent", self._no_intent, "registry.intents.Intents.naming")
        looks = [Step("put_tombstone", self._put_tombstone, whole), no_intent, no_link] if self.tombstone else []
        return [
            Step("old", self._old, whole),
            no_intent,
            no_link,
            *looks,
            Step("delete_holder", self._delete_holder, whole),
        ]

    def _old(self, store: Store, _: Local) -> tuple[Store, Local, bool]:
        ours = {day for name, copy, day in store.holders if (name, copy) == (self.repository, self.copy)}
        return store, store.day, any(day < store.day for day in ours)

    def _no_intent(self, store: Store, signed: Local) -> tuple[Store, Local, bool]:
        return store, signed, not any(copy == self.copy for _, copy, _ in store.intents)

    def _no_link(self, store: Store, signed: Local) -> tuple[Store, Local, bool]:
        return store, signed, not any(fact[:2] == (self.repository, self.copy) for fact in store.links)

    def _put_tombstone(self, store: Store, signed: Local) -> tuple[Store, Local, bool]:
        if store.day != signed:
            return store, signed, False
        return replace(store, tombstones=store.tombstones | {(self.repository, self.copy, store.day)}), signed, True

    def _delete_holder(self, store: Store, signed: Local) -> tuple[Store, Local, bool]:
        if store.day != signed:
            return store, signed, False
        return store.without("holders", lambda fact: fact[:2] == (self.repository, self.copy)), signed, True


def manifest_deleter(name: str = "old") -> Process:
    """DELETE of a manifest: nothing needs to be asked first."""

    def act(store: Store, local: Local) -> tuple[Store, Local, bool]:
        return store.without("manifests", lambda fact: fact[0] == name), local, True

    return [Step("delete_manifest", act, "registry.manifests.Manifests.delete")]


def unguarded_deleter() -> Process:
    """What the DELETE of a blob must not be."""

    def act(store: Store, local: Local) -> tuple[Store, Local, bool]:
        return store.without("links", lambda fact: fact[:2] == (HOME, "X")), local, True

    return [Step("delete_link", act, None)]


def clock(days: int = 1) -> Process:
    """Days pass."""

    def act(store: Store, local: Local) -> tuple[Store, Local, bool]:
        return replace(store, day=store.day + 1), local, True

    return [Step("day", act, None)] * days


def expiry(kind: str, *, names_once: bool = True) -> Process:
    """Intents or tombstones of earlier days are listed, then deleted by name. Without `names_once` that name is used again."""

    def find(store: Store, _: Local) -> tuple[Store, Local, bool]:
        old = frozenset(fact for fact in getattr(store, kind) if fact[2] < store.day)
        return store, old, bool(old)

    def delete(store: Store, old: Local) -> tuple[Store, Local, bool]:
        names = {fact[:2] for fact in old}
        return store.without(kind, lambda fact: fact in old if names_once else fact[:2] in names), old, True

    does = "upkeep.garbage.sweep.Sweep.expired"
    return [Step(f"find_old_{kind}", find, does), Step(f"delete_old_{kind}", delete, does)]


def _renewed(facts: frozenset[tuple[str, str, int]], new: set[tuple[str, str, int]]) -> frozenset[tuple[str, str, int]]:
    """A key that is written again has the date of the last writing."""
    names = {fact[:2] for fact in new}
    return frozenset(fact for fact in facts if fact[:2] not in names) | new


def counterexample(processes: Sequence[Process], start: Store | None = None) -> Sequence[str] | None:
    """A schedule that breaks the invariant, as `process.step` names; None when all were explored and none does."""
    begin = (start or Store(), tuple((0, None) for _ in processes))
    seen, stack = {begin}, [(begin, ())]
    while stack:
        (store, at), path = stack.pop()
        if not store.consistent:
            return path
        for number, steps in enumerate(processes):
            place, local = at[number]
            if place >= len(steps):
                continue
            after, remembered, goes_on = steps[place].act(store, local)
            moved = (place + 1, remembered) if goes_on and place + 1 < len(steps) else (len(steps), None)
            state = (after, (*at[:number], moved, *at[number + 1 :]))
            if state not in seen:
                seen.add(state)
                stack.append((state, (*path, f"{number}.{steps[place].name}")))
    return None
