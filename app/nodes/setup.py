"""Node set-up: applies a site to a node's root, says what is missing there, and takes back exactly what it made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from app.nodes import addresses, detection, hosts, k3s, record
from app.nodes.changes import Change, Changes, plan
from app.nodes.files import ClientFiles, Foreign
from app.nodes.record import Record
from app.nodes.root import HOME, Root, discard, temporary
from app.nodes.settings import NodeSettings

_ATTEMPTS = 5
"""How often a file is read again that others write at the same moment."""


@dataclass(slots=True)
class Outcome:
    """What was done, or would be; `refused` maps paths to reasons; `notes` and `restart` are for people.

    `replaced`: a file that is mounted alone is no longer the node's; only a new mount shows the new one.
    `raced`: somebody else wrote a file while it was changed.
    """

    changes: list[Change] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    restart: list[str] = field(default_factory=list)
    replaced: bool = False
    raced: bool = False

    @property
    def clean(self) -> bool:
        """Whether nothing was refused."""
        return not self.refused


class NodeSetup:
    """One node. Every method blocks, and raises OSError for what cannot be read or written, StartError for bad input."""

    def __init__(self, root: Root, environ: Mapping[str, str]) -> None:
        self._root = root
        self._environ = environ

    def preview(self, settings: NodeSettings) -> Outcome:
        """What `apply` would do; writes nothing."""
        wanted, outcome = self._wanted(settings)
        self._planned(wanted, outcome)
        return outcome

    def apply(self, settings: NodeSettings) -> Outcome:
        """Brings the node to where it shall be. Foreign files are left alone and named in the outcome."""
        if settings.state == "absent":
            return self.remove()
        with self._root.lock():
            self._root.recover()
            wanted, outcome = self._wanted(settings)
            return self._executed(wanted, outcome)

    def remove(self) -> Outcome:
        """Takes away what the record says was made, by whichever configuration."""
        if not self._root.exists(HOME):
            return Outcome()
        with self._root.lock():
            self._root.recover()
            outcome = self._executed([], Outcome())
            self._root.remove_folder(HOME)
            return outcome

    def preview_removal(self) -> Outcome:
        """What `remove` would do; writes nothing."""
        outcome = Outcome()
        self._planned([], outcome)
        return outcome

    def _wanted(self, settings: NodeSettings) -> tuple[list[ClientFiles], Outcome]:
        outcome = Outcome()
        if settings.state == "absent":
            return [], outcome
        known = addresses.find(settings.addresses, self._entries(), self._environ)
        for name in settings.addresses.keys() - known.keys():
            outcome.refused[f"{hosts.PATH} {name}"] = "its address is not known yet"
        site = settings.site(known)
        clients = settings.clients if settings.clients is not None else detection.found(self._root)
        if not clients:
            outcome.notes.append("there is no sign of containerd, k3s, docker, podman or crio on this node")
        wanted = detection.configure(self._root, site, clients)
        for client in wanted:
            outcome.notes += [f"{client.client}: {note}" for note in client.notes]
            outcome.notes += [f"{client.client}: {one.path}: {one.why}:\n{one.text}" for one in client.by_hand]
        return [*wanted, *detection.host_entries(site, named=bool(settings.addresses))], outcome

    def _entries(self) -> dict[str, str]:
        try:
            return hosts.ours((self._root.read(hosts.PATH) or b"").decode(errors="surrogateescape"))
        except Foreign:
            return {}

    def _planned(self, wanted: Sequence[ClientFiles], outcome: Outcome) -> Changes:
        """Plans, and says in the outcome what comes of it."""
        found = plan(self._root, record.load(self._root), wanted)
        outcome.changes += found.changes
        outcome.refused |= found.refused
        changed = {change.path for change in found.changes}
        for client in wanted:
            if not client.by_hand and changed & set(_read_at_start(client)):
                outcome.restart += client.restart
        if found.generated and k3s.PATH in changed:
            outcome.restart.append(k3s.RESTART)
        return found

    def _executed(self, wanted: Sequence[ClientFiles], outcome: Outcome) -> Outcome:
        """The record grows before the first change and shrinks after the last, so a kill leaves nothing unknown."""
        before = record.load(self._root)
        for path in (*before.files, *before.edits):
            discard(temporary(self._root.real(path)))
        for _ in range(_ATTEMPTS):
            outcome.raced = False
            found = self._planned(wanted, outcome)
            made = [
                folder
                for one in found.changes
                if one.after is not None
                for folder in self._root.missing_folders(one.path)
            ]
            grown = record.load(self._root).joined(found.keep).joined(Record(folders=tuple(dict.fromkeys(made))))
            record.save(self._root, grown)
            for change in found.changes:
                found.keep = found.keep.joined(self._do(change, outcome))
            self._shrink(grown, found.keep)
            if not outcome.raced:
                return outcome
        outcome.refused[hosts.PATH] = "somebody else writes it all the time: run this again"
        return outcome

    def _do(self, change: Change, outcome: Outcome) -> Record:
        """Makes one change; returns what stays in the record because it could not be made."""
        try:
            if change.after is not None:
                self._root.make_folders(change.path)
            if change.after is None:
                self._root.remove(change.path)
            elif not change.edit:
                self._root.write(change.path, change.after, change.mode)
            elif not self._root.rewrite(change.path, change.before, change.after):
                outcome.raced = True
                outcome.changes.remove(change)
                return Record(edits=(change.path,))
        except Foreign as error:
            outcome.refused[change.path] = str(error)
            outcome.replaced = True
        except OSError as error:
            outcome.refused[change.path] = f"it cannot be written: {error.strerror}"
        else:
            return Record()
        outcome.changes.remove(change)
        if change.edit:
            return Record(edits=(change.path,))
        return Record(files=(change.path,) if change.before is not None else ())

    def _shrink(self, grown: Record, keep: Record) -> None:
        """Folders that we made and nothing needs go, and the record names only what is there."""
        needed = (*keep.files, *keep.edits)
        for folder in reversed(grown.folders):
            if not any(path.startswith(f"{folder}/") for path in needed):
                self._root.remove_folder(folder)
        folders = tuple(folder for folder in grown.folders if self._root.exists(folder))
        record.save(self._root, Record(keep.files, keep.edits, keep.created, folders if needed else ()))


def _read_at_start(client: ClientFiles) -> list[str]:
    """The files that this client reads only when it starts or reloads."""
    files = [file.path for file in client.files if not file.path.endswith(("/ca.crt", "/hosts.toml"))]
    return [*(edit.path for edit in client.edits), *files]
