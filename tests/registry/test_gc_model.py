"""The protocol holds in every interleaving, each of its rules is needed, and the program has the steps it names."""

from collections.abc import Sequence
from importlib import import_module

import pytest

from tests.registry.gc_model import (
    AWAY,
    EMPTY,
    HOME,
    UNUSED,
    Deleter,
    Mounter,
    Process,
    Publisher,
    Store,
    Uploader,
    clock,
    counterexample,
    intent_expiry,
    manifest_deleter,
    sweeper,
    tombstone_expiry,
    unguarded_deleter,
)

TIME = [clock(), intent_expiry(), tombstone_expiry()]
PUSH, DELETE, COLLECT = Publisher("a").steps(), manifest_deleter(), Deleter().steps()
DELETE_BLOB = Deleter(repository=HOME).steps()

SAFE: dict[str, tuple[Sequence[Process], Store]] = {
    "two pushes, a delete, two collectors": ([PUSH, Publisher("b").steps(), DELETE, COLLECT, COLLECT], Store()),
    "a push, its delete, a delete, two collectors": (
        [PUSH, manifest_deleter("a"), DELETE, COLLECT, COLLECT],
        Store(),
    ),
    "a push, a delete, two collectors, a day": ([PUSH, DELETE, COLLECT, COLLECT, *TIME], Store()),
    "a push, a delete, a collector, two days": (
        [PUSH, DELETE, COLLECT, clock(2), intent_expiry(), tombstone_expiry()],
        Store(),
    ),
    "a mount, a delete, a collector, a day": ([Mounter("m").steps(), DELETE, COLLECT, *TIME], Store()),
    "a mount and a push, a delete, a collector": ([Mounter("m").steps(), PUSH, DELETE, COLLECT], Store()),
    "an upload, the orphan sweep, a day": ([Uploader("U").steps(), sweeper("U"), clock()], EMPTY),
    "a push and DELETE of its blob, a collector": ([PUSH, DELETE_BLOB, COLLECT], UNUSED),
    "a push and DELETE of its blob, a day": ([PUSH, DELETE_BLOB, *TIME], UNUSED),
    "a mount and DELETE of the source's blob, a day": ([Mounter("m").steps(), DELETE_BLOB, *TIME], UNUSED),
    "a mount and DELETE of the blob where it goes": (
        [Mounter("m").steps(), Deleter(repository=AWAY).steps(), *TIME],
        UNUSED,
    ),
}

BROKEN: dict[str, tuple[Sequence[Process], Store]] = {
    "a publish without a fence": ([Publisher("a", fenced=False).steps(), DELETE, COLLECT, *TIME], Store()),
    "a mounted link without a fence": ([Mounter("m", fenced=False).steps(), DELETE, COLLECT, *TIME], Store()),
    "deletes without a fence": ([PUSH, DELETE, Deleter(fenced=False).steps(), *TIME], Store()),
    "a bind without a fence": ([Uploader("U", fenced=False).steps(), sweeper("U"), clock()], EMPTY),
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
    assert len(named) >= 12
    for name in named:
        module, *path = name.split(".")
        found: object = import_module(f"app.registry.{module}")
        for part in path:
            found = getattr(found, part)
        assert callable(found), name
