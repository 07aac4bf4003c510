"""What people see of work that goes from stage to stage: one bar, or line, after the other."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

from app.cli.progress import counting, watching

_COUNTED: Final = frozenset({"listing", "tags", "manifests", "collecting"})
_HASHED: Final = "bytes"


class Stages:
    """Entered while there are any."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._stage = ""
        self._bar: Callable[[int, int], None] = lambda _done, _total: None

    def __enter__(self) -> "Stages":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def show(self, stage: str, done: int, total: int) -> None:
        """How far a stage is, in things or in bytes; what takes no time is not shown."""
        if stage != _HASHED and stage not in _COUNTED:
            return
        if stage != self._stage:
            self._stack.close()
            self._stage = stage
            if stage == _HASHED:
                self._bar = self._stack.enter_context(watching("hashing")).begin("blobs").show
            else:
                self._bar = self._stack.enter_context(counting(stage)).show
        self._bar(done, total)
