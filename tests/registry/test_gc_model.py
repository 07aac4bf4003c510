"""The protocol holds in every interleaving, each of its rules is needed, and the program has the steps it names."""

from collections.abc import Sequence
from pkgutil import resolve_name

import pytest

from tests.registry.gc_model import (
    AWAY,
    EMPTY,
    HOME,
    LEFT_OVER,
    SHARED,
    UNUSED,
    Adopter,
    Deleter,
    HolderSweeper,
    Mounter,
    OrphanSweeper,
    Process,
    Publisher,
    Store,
    Uploader,
    clock,
    counterexample,
    expiry,
    manifest_deleter,
    unguarded_deleter,
)

TIME = [clock(), expiry("intents"), expiry("tombstones")]
PUSH, DELETE, COLLECT = Publisher("a").steps(), manifest_deleter(), Deleter().steps()
EVICT, COLLECT_ADOPTED = Deleter(grace=False).steps(), Deleter(adopted=True).steps()
DELETE_BLOB = Deleter(repository=HOME, keeps_holder=True).steps()
MOUNT = Mounter("m").steps()
AGAIN = Uploader("X", again=True).steps()
EVICT_SHARED = Deleter(seen=AWAY, grace=False).steps()

SAFE: dict[str, tuple[Sequence[Process], Store]] = {
    "two pushes, a delete, two collectors": ([PUSH, Publisher("b").steps(), DELETE, COLLECT, COLLECT], Store()),
    "a push, its delete, a delete, two collectors": (
        [PUSH, manifest_deleter("a"), DELETE, COLLECT, COLLECT],
        Store(),
    ),
    "a push, a delete, two collectors, a day": ([PUSH, DELETE, COLLECT, COLLECT, *TIME], Store()),
    "a push, a delete, a collector, two days": (
        [PUSH, DELETE, COLLECT, clock(2), expiry("intents"), expiry("tombstones")],
        Store(),
    ),
    "a mount, a delete, a collector, a day": ([MOUNT, DELETE, COLLECT, *TIME], Store()),
    "a mount and a push, a delete, a collector": ([MOUNT, PUSH, DELETE, COLLECT], Store()),
    "a push, a delete, an eviction, a collector": ([PUSH, DELETE, EVICT, COLLECT], Store()),
    "a mount, a delete, an eviction, a day": ([MOUNT, DELETE, EVICT, *TIME], Store()),
    "a push, a delete, two evictions, a day": ([PUSH, DELETE, EVICT, EVICT, *TIME], Store()),
    "an upload, the orphan sweep, a day": ([Uploader("U").steps(), OrphanSweeper("U").steps(), clock()], EMPTY),
    "an upload, the orphan sweep, two days": (
        [Uploader("U").steps(), OrphanSweeper("U").steps(), clock(2), expiry("tombstones")],
        EMPTY,
    ),
    "an upload, the orphan sweep, a collector, a day": (
        [Uploader("U").steps(), OrphanSweeper("U").steps(), Deleter("U", grace=False).steps(), clock()],
        EMPTY,
    ),
    "a mount while its source goes, the orphan sweep": (
        [MOUNT, DELETE_BLOB, OrphanSweeper("X").steps()],
        UNUSED,
    ),
    "a mount while its source goes, the orphan sweep, a day": (
        [MOUNT, DELETE_BLOB, OrphanSweeper("X").steps(), *TIME],
        UNUSED,
    ),
    "a mount over what a delete left, its sweep, a collector": (
        [MOUNT, HolderSweeper().steps(), DELETE, COLLECT],
        LEFT_OVER,
    ),
    "a mount over what a delete left, its sweep, an eviction, a day": (
        [MOUNT, HolderSweeper().steps(), DELETE, EVICT, *TIME],
        LEFT_OVER,
    ),
    "a mount where its blob is deleted, a collector": (
        [MOUNT, Deleter(repository=AWAY).steps(), DELETE, COLLECT],
        LEFT_OVER,
    ),
    "adopted bytes linked again while their links go": ([Adopter().steps(), COLLECT_ADOPTED, COLLECT_ADOPTED], UNUSED),
    "adopted bytes linked again while their links go, a push, a day": (
        [Adopter().steps(), PUSH, COLLECT_ADOPTED, *TIME],
        UNUSED,
    ),
    "a push and DELETE of its blob, a collector": ([PUSH, DELETE_BLOB, COLLECT], UNUSED),
    "a push and DELETE of its blob, a day": ([PUSH, DELETE_BLOB, *TIME], UNUSED),
    "a mount and DELETE of the source's blob, a day": ([MOUNT, DELETE_BLOB, *TIME], UNUSED),
    "an upload's last request again, DELETE of its blob, a day": ([AGAIN, DELETE_BLOB, *TIME], SHARED),
    "an upload's last request again, DELETE of its blob, an eviction, a day": (
        [AGAIN, DELETE_BLOB, EVICT_SHARED, clock(), expiry("tombstones")],
        SHARED,
    ),
    "an upload's last request again, DELETE of its blob, the sweep of its holder, a day": (
        [AGAIN, DELETE_BLOB, HolderSweeper(HOME).steps(), clock(), expiry("tombstones")],
        SHARED,
    ),
    "a blob pushed again, a collector": ([Mounter("m", into=HOME).steps(), DELETE, COLLECT], Store()),
    "a blob pushed again, an eviction, a day": ([Mounter("m", into=HOME).steps(), DELETE, EVICT, *TIME], Store()),
    "a mount and DELETE of the blob where it goes, whose holder goes too": (
        [MOUNT, Deleter(repository=AWAY).steps(), *TIME],
        UNUSED,
    ),
    "a mount and DELETE of the blob where it goes": (
        [MOUNT, Deleter(repository=AWAY, keeps_holder=True).steps(), *TIME],
        UNUSED,
    ),
}

BROKEN: dict[str, tuple[Sequence[Process], Store]] = {
    "a publish without a fence": ([Publisher("a", fenced=False).steps(), DELETE, COLLECT, *TIME], Store()),
    "a mounted link without a fence": ([Mounter("m", fenced=False).steps(), DELETE, COLLECT, *TIME], Store()),
    "deletes without a fence": ([PUSH, DELETE, Deleter(fenced=False).steps(), *TIME], Store()),
    "a bind without a fence": (
        [Uploader("U", fenced=False).steps(), OrphanSweeper("U").steps(), clock(2), expiry("tombstones")],
        EMPTY,
    ),
    "tombstones looked for before the intent": (
        [Publisher("a", intent_first=False).steps(), DELETE, COLLECT],
        Store(),
    ),
    "an intent released before a definite answer": (
        [Publisher("a", release_early=True).steps(), DELETE, COLLECT],
        Store(),
    ),
    "no tombstone": ([PUSH, DELETE, Deleter(tombstone=False).steps()], Store()),
    "no second look": ([PUSH, DELETE, Deleter(second_look=False).steps()], Store()),
    "manifests looked at before intents": ([PUSH, DELETE, Deleter(intents_first=False).steps()], Store()),
    "an eviction without a tombstone": ([PUSH, DELETE, Deleter(grace=False, tombstone=False).steps()], Store()),
    "an eviction that looks at manifests before intents": (
        [PUSH, DELETE, Deleter(grace=False, intents_first=False).steps()],
        Store(),
    ),
    "a tombstone whose name is used again": (
        [PUSH, DELETE, COLLECT, COLLECT, clock(), expiry("tombstones", names_once=False)],
        Store(tombstones=frozenset({("", "X", -1)})),
    ),
    "orphans swept without a tombstone": (
        [MOUNT, DELETE_BLOB, OrphanSweeper("X", tombstone=False).steps()],
        UNUSED,
    ),
    "derived keys swept without a tombstone": (
        [MOUNT, HolderSweeper(tombstone=False).steps(), DELETE, EVICT],
        LEFT_OVER,
    ),
    "derived keys deleted without a fence": (
        [MOUNT, Deleter(repository=AWAY, fenced_holders=False).steps(), DELETE, EVICT, *TIME],
        Store(
            links=frozenset({(HOME, "X", -1), (AWAY, "X", -1)}),
            holders=frozenset({(HOME, "X", -1), (AWAY, "X", -1)}),
        ),
    ),
    "DELETE of a blob whose holder goes too": (
        [AGAIN, Deleter(repository=HOME).steps(), EVICT_SHARED, clock(), expiry("tombstones")],
        SHARED,
    ),
    "an eviction that minds no young holder": (
        [
            AGAIN,
            DELETE_BLOB,
            Deleter(seen=AWAY, grace=False, young_holders=False).steps(),
            clock(),
            expiry("tombstones"),
        ],
        SHARED,
    ),
    "DELETE of a blob that only removes the link": ([PUSH, unguarded_deleter()], UNUSED),
    "DELETE of a blob without a tombstone": ([PUSH, Deleter(repository=HOME, tombstone=False).steps()], UNUSED),
    "DELETE of a blob without a fence": ([PUSH, Deleter(repository=HOME, fenced=False).steps(), *TIME], UNUSED),
}


@pytest.mark.parametrize("case", SAFE)
def test_no_schedule_loses_what_a_manifest_needs(case: str) -> None:
    processes, start = SAFE[case]
    assert counterexample(processes, start) is None


@pytest.mark.parametrize("case", BROKEN)
def test_a_shortcut_loses_content(case: str) -> None:
    processes, start = BROKEN[case]
    assert counterexample(processes, start) is not None


def test_every_step_names_a_function_that_exists() -> None:
    processes = [steps for cases in (SAFE, BROKEN) for found, _ in cases.values() for steps in found]
    named = {step.does for steps in processes for step in steps if step.does is not None}
    assert len(named) >= 20
    assert {step.name for steps in processes for step in steps if step.does is None} == {"day", "delete_link"}
    for name in named:
        assert callable(resolve_name(f"app.{name}")), name
