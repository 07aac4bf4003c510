"""Online garbage collection, explored step by step: every interleaving, crash and pause of publishers and collectors.

A step is one request to the store. A process may stop for ever after any step (a crash) or wait as long as it likes,
also while a day passes (a suspended laptop). A day stands for every lifetime of the protocol: signatures, intents,
tombstones and the grace period end with it; the real ones are ordered (app/registry/lifetimes.py).

The invariant, in every state: the repository of a visible manifest has a link to a copy whose bytes exist.

Each step says in `does` which function of the program does it: test_gc_model.py checks that those exist, and
test_publishing.py and test_deletion.py that they make their requests in this order. Steps that the program does not
have yet, most of the collector's, say None.
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


@dataclass(frozen=True, slots=True)
class Step:
    """One request. `does` is `module.function` below app.registry; None where the program has none yet."""

    name: str
    act: Act
    does: str | None


Process = Sequence[Step]

EMPTY: Final = Store(data=frozenset(), links=frozenset(), manifests=frozenset())
UNUSED: Final = Store(manifests=frozenset())


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
            Step("put_intent", self._put_intent, "publishing.intent"),
            Step("drop_tombstoned", self._drop_tombstoned, "publishing.tombstoned"),
        ]
        ends = [
            Step("publish", self._publish, "manifests.Manifests._publish"),
            Step("release", self._release, "publishing._release"),
        ]
        return [
            Step("sign", self._sign, "manifests.Manifests._publish"),
            Step("resolve", self._resolve, "publishing.first_linked"),
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
        return replace(store, intents=frozenset(fact for fact in store.intents if fact[0] != self.name)), local, True


@dataclass(frozen=True, slots=True)
class Mounter:
    """A mount (or a push that links an older copy) from HOME into AWAY, then a manifest there that trusts the link."""

    name: str
    fenced: bool = True

    def steps(self) -> Process:
        sign, resolve, put_intent, drop_tombstoned, _, release = Publisher(self.name).steps()
        return [
            replace(sign, does="publishing.adopt"),
            replace(resolve, does="publishing.linked"),
            put_intent,
            drop_tombstoned,
            Step("put_link", self._put_link, "publishing.bind"),
            release,
            *Publisher(f"{self.name}-manifest", AWAY).steps(),
        ]

    def _put_link(self, store: Store, local: Local) -> tuple[Store, Local, bool]:
        if self.fenced and store.day != local[0]:
            return store, local, False
        return replace(store, links=store.links | {(AWAY, copy, store.day) for copy in local[1]}), local, True


@dataclass(frozen=True, slots=True)
class Uploader:
    """Bytes under a new name, then the link, then a manifest."""

    name: str
    fenced: bool = True

    def steps(self) -> Process:
        return [
            Step("complete", self._complete, "uploads.Uploads._receive"),
            Step("bind", self._bind, "publishing.bind"),
            *Publisher(f"{self.name}-manifest").steps(),
        ]

    def _complete(self, store: Store, _: Local) -> tuple[Store, Local, bool]:
        return replace(store, data=store.data | {(self.name, store.day)}), store.day, True

    def _bind(self, store: Store, signed: Local) -> tuple[Store, Local, bool]:
        if self.fenced and store.day != signed:
            return store, signed, False
        return replace(store, links=store.links | {(HOME, self.name, store.day)}), signed, True


@dataclass(frozen=True, slots=True)
class Deleter:
    """Collects a copy; with a repository it is the DELETE of a blob, which takes away that repository's link alone.

    The second look repeats the first. The switches break the protocol, one rule each.
    """

    copy: str = "X"
    repository: str = ""
    tombstone: bool = True
    second_look: bool = True
    intents_first: bool = True
    fenced: bool = True

    def steps(self) -> Process:
        ours = bool(self.repository)  # only the DELETE of a blob is in the program yet
        intents = Step("no_intent", self._no_intent, "deletion._intended" if ours else None)
        manifests = Step("no_manifest", self._no_manifest, "deletion._named" if ours else None)
        fresh = Step("no_fresh_link", self._no_fresh_link, None)
        looks = [intents, fresh, manifests] if self.intents_first else [manifests, fresh, intents]
        whole = "deletion.delete_links" if ours else None
        return [
            Step("sign", self._sign, whole),
            *looks,
            *([Step("put_tombstone", self._put_tombstone, whole)] if self.tombstone else []),
            *(looks if self.second_look else []),
            Step("delete_links", self._delete_links, whole),
            Step("delete_bytes", self._delete_bytes, None),
        ]

    def _sign(self, store: Store, _: Local) -> tuple[Store, Local, bool]:
        return store, store.day, True

    def _no_intent(self, store: Store, local: Local) -> tuple[Store, Local, bool]:
        return store, local, not any(copy == self.copy for _, copy, _ in store.intents)

    def _no_fresh_link(self, store: Store, local: Local) -> tuple[Store, Local, bool]:
        fresh = any(copy == self.copy and day >= store.day for _, copy, day in store.links)
        return store, local, bool(self.repository) or not fresh

    def _no_manifest(self, store: Store, local: Local) -> tuple[Store, Local, bool]:
        linked = {name for name, copy, _ in store.links if copy == self.copy and self.repository in ("", name)}
        return store, local, not any(name in linked for _, name in store.manifests)

    def _put_tombstone(self, store: Store, local: Local) -> tuple[Store, Local, bool]:
        return replace(store, tombstones=store.tombstones | {(self.repository, self.copy, store.day)}), local, True

    def _delete_links(self, store: Store, local: Local) -> tuple[Store, Local, bool]:
        if self.fenced and store.day != local:
            return store, local, False
        kept = {link for link in store.links if link[1] != self.copy or self.repository not in ("", link[0])}
        return replace(store, links=frozenset(kept)), local, True

    def _delete_bytes(self, store: Store, local: Local) -> tuple[Store, Local, bool]:
        if self.repository or (self.fenced and store.day != local):
            return store, local, False
        return replace(store, data=frozenset(fact for fact in store.data if fact[0] != self.copy)), local, True


def sweeper(copy: str) -> Process:
    """Bytes without a link, a day after they were written. Not in the program yet."""

    def old_without_link(store: Store, local: Local) -> tuple[Store, Local, bool]:
        old = any(found == copy and day < store.day for found, day in store.data)
        return store, local, old and not any(found == copy for _, found, _ in store.links)

    def delete_orphan(store: Store, local: Local) -> tuple[Store, Local, bool]:
        return replace(store, data=frozenset(fact for fact in store.data if fact[0] != copy)), local, True

    return [Step("old_without_link", old_without_link, None), Step("delete_orphan", delete_orphan, None)]


def manifest_deleter(name: str = "old") -> Process:
    """DELETE of a manifest: nothing needs to be asked first."""

    def act(store: Store, local: Local) -> tuple[Store, Local, bool]:
        return replace(store, manifests=frozenset(fact for fact in store.manifests if fact[0] != name)), local, True

    return [Step("delete_manifest", act, "manifests.Manifests.delete")]


def unguarded_deleter() -> Process:
    """What the DELETE of a blob must not be."""

    def act(store: Store, local: Local) -> tuple[Store, Local, bool]:
        return replace(store, links=frozenset(link for link in store.links if link[:2] != (HOME, "X"))), local, True

    return [Step("delete_link", act, None)]


def clock(days: int = 1) -> Process:
    """Days pass."""

    def act(store: Store, local: Local) -> tuple[Store, Local, bool]:
        return replace(store, day=store.day + 1), local, True

    return [Step("day", act, None)] * days


def intent_expiry() -> Process:
    """Intents of earlier days go. Not in the program yet."""

    def act(store: Store, local: Local) -> tuple[Store, Local, bool]:
        return replace(store, intents=frozenset(fact for fact in store.intents if fact[2] >= store.day)), local, True

    return [Step("expire_intents", act, None)]


def tombstone_expiry() -> Process:
    """Tombstones of earlier days go. Not in the program yet."""

    def act(store: Store, local: Local) -> tuple[Store, Local, bool]:
        kept = frozenset(fact for fact in store.tombstones if fact[2] >= store.day)
        return replace(store, tombstones=kept), local, True

    return [Step("expire_tombstones", act, None)]


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
            moved = (place + 1 if goes_on else len(steps), remembered)
            state = (after, (*at[:number], moved, *at[number + 1 :]))
            if state not in seen:
                seen.add(state)
                stack.append((state, (*path, f"{number}.{steps[place].name}")))
    return None
