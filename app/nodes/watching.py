"""Keeps a node as its configuration says: looks again and again, at the configuration, at DNS, and at the node."""

from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Event

from app.errors import StartError
from app.nodes import settings as documents
from app.nodes.root import Root
from app.nodes.setup import NodeSetup, Outcome


class Watch:
    """Rounds of `NodeSetup.apply`. `told` gets what a round did, and the reason of one that failed, once each."""

    def __init__(
        self,
        root: Root,
        file: Path,
        environ: Mapping[str, str],
        told: Callable[[Outcome | str], None],
        ready_file: Path | None = None,
    ) -> None:
        self._setup = NodeSetup(root, environ)
        self._file = file
        self._told = told
        self._ready_file = ready_file
        self._last: object = None

    def run(self, stop: Event, interval: float) -> bool:
        """Rounds until `stop` is set, `interval` seconds apart; True then.

        False where a file that is mounted alone was replaced on the node: only another process, with new mounts, can
        go on.
        """
        while not stop.is_set():
            if not self.round():
                return False
            stop.wait(interval)
        return True

    def round(self) -> bool:
        """Applies the configuration as it is now; a failure is told, and the next round tries again."""
        try:
            outcome = self._setup.apply(documents.load(self._file))
        except StartError as error:
            self._tell(str(error), str(error))
            self._ready(False)
            return True
        except OSError as error:
            text = ": ".join(str(part) for part in (error.filename, error.strerror) if part)
            self._tell(text, text)
            self._ready(False)
            return True
        if outcome.changes:
            self._last = None
        self._tell(outcome, (outcome.refused, outcome.notes))
        self._ready(outcome.clean)
        return not outcome.replaced

    def _tell(self, what: Outcome | str, gist: object) -> None:
        if gist != self._last:
            self._told(what)
        self._last = gist

    def _ready(self, ready: bool) -> None:
        if self._ready_file is None:
            return
        if ready:
            self._ready_file.touch()
        else:
            self._ready_file.unlink(missing_ok=True)
