"""What people see while images come: bars on a terminal, lines elsewhere."""

import sys
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from app.cli import output
from app.quantities import size_text

_LINE_SECONDS: Final = 10.0
"""Between two lines that count."""


class Watching(Protocol):
    """Everything that comes. Entered while it does."""

    def begin(self, title: str) -> "Bar":
        """One thing begins to come."""
        ...


class Bar(Protocol):
    """One thing that comes."""

    def show(self, come: int, total: int) -> None:
        """Bytes that came, and all that are wanted."""
        ...

    def end(self) -> None:
        """It comes no more."""
        ...


class Bars:
    """A bar each, with bytes, speed and the time left."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
            redirect_stdout=sys.stdout.isatty(),  # what is piped elsewhere goes there
        )

    def __enter__(self) -> "Bars":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def begin(self, title: str) -> Bar:
        """A new bar."""
        return _OnTerminal(self._progress, title)


class _OnTerminal:
    def __init__(self, progress: Progress, title: str) -> None:
        self._progress = progress
        self._task = progress.add_task(title, total=None)

    def show(self, come: int, total: int) -> None:
        self._progress.update(self._task, completed=come, total=total)

    def end(self) -> None:
        self._progress.remove_task(self._task)


class Lines:
    """A line for each thing that has bytes to come, which begins with `verb`."""

    def __init__(self, verb: str) -> None:
        self._verb = verb

    def begin(self, title: str) -> Bar:
        """Nothing yet: most things are here."""
        return _InLog(f"{self._verb} {title}")


class _InLog:
    def __init__(self, title: str) -> None:
        self._title = title
        self._said = False

    def show(self, come: int, total: int) -> None:
        if total and not self._said:
            output.note(f"{self._title}: {size_text(total)}")
            self._said = True

    def end(self) -> None:
        pass


def watching(verb: str = "fetching") -> AbstractContextManager[Watching]:
    """Bars where standard error is a terminal, lines where it is not; what a line says is done to each thing."""
    console: Any = Console(stderr=True)
    return Bars(console) if console.is_terminal else nullcontext(Lines(verb))


class Counting(Protocol):
    """How many of many things are done. Entered while they are."""

    wants_total: bool
    """Whether it is worth a look how many there are."""

    def show(self, done: int, total: int) -> None:
        """Things that are done, and all of them; 0 where that is not known."""
        ...


class _Counted:
    """One bar of things, with the time left."""

    wants_total = True

    def __init__(self, console: Console, title: str) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            redirect_stdout=sys.stdout.isatty(),
        )
        self._task = self._progress.add_task(title, total=None)

    def __enter__(self) -> "_Counted":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, done: int, total: int) -> None:
        self._progress.update(self._task, completed=done, total=total or None)


class _CountedInLines:
    """A line now and then."""

    wants_total = False

    def __init__(self, title: str) -> None:
        self._title, self._last = title, time.monotonic()

    def show(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._last >= _LINE_SECONDS:
            self._last = now
            output.note(f"{self._title}: {done:,}{f' of {total:,}' if total else ''}")


def counting(title: str) -> AbstractContextManager[Counting]:
    """One bar where standard error is a terminal, a line every ten seconds where it is not."""
    console: Any = Console(stderr=True)
    return _Counted(console, title) if console.is_terminal else nullcontext(_CountedInLines(title))
