"""Copying for `edge-registry copy`: one registry after the other, a line for each image, and the sum of all."""

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from app.cli import output
from app.cli.opened import Opened
from app.cli.progress import Bar, Watching, watching
from app.errors import StartError
from app.main import log_line
from app.oci.errors import NameInvalid, RegistryError
from app.oci.names import Name, parse_name
from app.proxy.errors import UpstreamError
from app.proxy.settings import names_of
from app.quantities import size_text
from app.settings import Settings
from app.transfer.copying.copying import Copying, Outcome
from app.transfer.copying.dialling import Options, dialled
from app.transfer.copying.image import Count, Image, Rules
from app.transfer.copying.selection import Selection


async def run(
    opened: Opened,
    wanted: Sequence[Selection],
    rules: Rules,
    options: Options,
    *,
    to: str | None,
    as_name: str | None,
    as_json: bool,
) -> bool:
    """Copies everything that is wanted; says whether all of it is here. Raises StartError."""
    if opened.settings.proxy.air_gapped:
        raise StartError("proxy.air_gapped is set: no registry is ever dialled")
    named = _naming(opened.settings, wanted, to, as_name)
    verb = "would copy" if rules.dry else "copying"
    bars: AbstractContextManager[Watching] = nullcontext(_Silent()) if as_json or rules.dry else watching(verb)
    with bars as shown:
        tally = _JsonTally(shown, rules) if as_json else _Tally(shown, rules)
        copying = Copying(opened.bucket, rules, named, tally)
        try:
            for host in dict.fromkeys(selection.host for selection in wanted):
                mine = [selection for selection in wanted if selection.host == host]
                await _copy(opened, host, mine, copying, options, tally)
        finally:
            await copying.close()
    tally.close()
    return tally.failed == 0


async def _copy(
    opened: Opened, host: str, wanted: Sequence[Selection], copying: Copying, options: Options, tally: "_Tally"
) -> None:
    report = partial(log_line, opened.log)
    try:
        async with dialled(host, opened.settings.proxy.upstreams, options, report) as source:
            for selection in wanted:
                await copying.run(source, selection)
            tally.moved += source.moved
    except UpstreamError as exc:
        for selection in wanted:
            tally.ended(Outcome(str(selection), None, None, Count(), exc.reason))


def _naming(
    settings: Settings, wanted: Sequence[Selection], to: str | None, as_name: str | None
) -> Callable[[Name], Name]:
    """The rule of names here. Raises StartError."""
    if as_name is not None and (len({str(item.repository) for item in wanted}) > 1 or not wanted[0].repository):
        raise StartError("--as names one repository, and the sources are in several")
    folders = {name.replace(":", "_") for upstream in settings.proxy.upstreams for name in names_of(upstream)}

    def named(name: Name) -> Name:
        text = as_name or "/".join(part for part in (to.strip("/") if to else "", name) if part)
        found = parse_name(text)
        if found.partition("/")[0] in folders:
            raise NameInvalid(f"{found} is where what is cached of an upstream lies: copy it elsewhere with --to")
        return found

    try:
        named(next((item.repository for item in wanted if item.repository), Name("any")))
    except RegistryError as error:
        raise StartError(error.message) from error
    return named


class _Silent:
    """Shows nothing."""

    def begin(self, title: str) -> Bar:
        return _NoBar()


class _NoBar:
    def show(self, come: int, total: int) -> None:
        pass

    def end(self) -> None:
        pass


@dataclass
class _Tally:
    """Counts what comes, and says what became of each image."""

    bars: Watching
    rules: Rules
    images: int = 0
    failed: int = 0
    moved: int = 0
    count: Count = field(default_factory=Count)

    def begin(self, image: Image) -> Bar:
        return self.bars.begin(str(image))

    def ended(self, outcome: Outcome) -> None:
        for name, value in asdict(outcome.count).items():
            setattr(self.count, name, getattr(self.count, name) + value)
        self.images += outcome.target is not None and outcome.trouble is None
        self.failed += outcome.trouble is not None
        self.say(outcome)

    def say(self, outcome: Outcome) -> None:
        """One line."""
        if outcome.trouble is not None:
            output.complain(f"{outcome.image}: {outcome.trouble}")
            return
        count = outcome.count
        name = f"{outcome.image} -> {outcome.target}"
        done = f"{size_text(count.bytes)} {'to come' if self.rules.dry else 'copied'}"
        output.say(f"{name}: {done if count.blobs or count.manifests else 'up to date'}")

    def close(self) -> None:
        """The last line."""
        count = self.count
        parts = [
            f"{self.images} images {'to copy' if self.rules.dry else 'here'}",
            f"{count.manifests} manifests and {count.blobs} blobs ({size_text(count.bytes)}) "
            + ("to come" if self.rules.dry else "copied"),
            f"{count.blobs_here} blobs ({size_text(count.bytes_here)}) here already",
        ]
        output.say("; ".join([*parts, *([f"{self.failed} failed"] if self.failed else [])]))


class _JsonTally(_Tally):
    """The same as one JSON object, of which nothing is kept."""

    def say(self, outcome: Outcome) -> None:
        """One member of `images`."""
        entry: dict[str, Any] = {
            "source": outcome.image,
            "target": outcome.target,
            "digest": outcome.digest,
            "trouble": outcome.trouble,
            **_numbers(outcome.count),
        }
        output.say(f"{',' if self._begun else _OPEN}\n  {json.dumps(entry)}")

    @property
    def _begun(self) -> bool:
        return self.images + self.failed > 1

    def close(self) -> None:
        """All the rest."""
        sums = {"dry_run": self.rules.dry, "copied": self.images, "failed": self.failed, **_numbers(self.count)}
        sums["bytes_received"] = self.moved
        output.say(f"{'' if self.images + self.failed else _OPEN}], {json.dumps(sums)[1:]}")


_OPEN = '{"images": ['


def _numbers(count: Count) -> dict[str, int]:
    return {key: value for key, value in asdict(count).items() if key != "wanted"}
