"""`edge-registry pin`: images that are kept here whole, and whether it is safe to disconnect."""

import asyncio
import json
import re
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from app import configuration
from app.cli import options, output
from app.cli.output import Failure
from app.errors import StartError
from app.oci.errors import RegistryError
from app.quantities import size_text

if TYPE_CHECKING:
    from app.proxy.images import Survey
    from app.proxy.pins import Pin, Pins

T = TypeVar("T")

_PLATFORM: Final = re.compile(r"all|[a-z0-9]+/[a-z0-9_]+(/[a-z0-9.]+)?")

commands = typer.Typer(
    help="""Keeps images of upstream registries here, whole and fresh.

    An image is named with its upstream first (quay.io/org/app:v1), or plainly where there is a default upstream
    (alpine). Tags may be patterns (`quay.io/org/app:v1.*`), repositories too (`quay.io/org/*:v1`), which then mean those that
    are cached already. Servers on the same store fetch what is missing or has moved every
    proxy.pin_interval; what is pinned is never evicted."""
)

References = Annotated[
    list[str] | None, typer.Argument(metavar="REF", help="Images, or patterns of them.", show_default=False)
]
Lists = Annotated[
    list[str] | None,
    typer.Option(
        "--file", metavar="LIST", help="A file of images, one a line; `#` begins a comment; - is standard input."
    ),
]


@commands.command("add")
def add(
    references: References = None,
    file: Lists = None,
    platform: Annotated[
        list[str] | None,
        typer.Option(
            "--platform",
            metavar="OS/ARCH",
            help="Such as linux/arm64, or `all`; repeat it for more. Without it, this machine's.",
        ),
    ] = None,
    no_fetch: Annotated[bool, typer.Option("--no-fetch", help="Only remember; servers fetch in their next round.")] = (
        False
    ),
    config: options.ConfigFile = None,
) -> None:
    """Pins images and fetches them.

    An image that is pinned already is kept for the new platforms as well. Ended with Ctrl-C, the same command goes on
    where it was.
    """
    wanted, platforms = _references(references, file), list(_platforms(platform or []))

    async def work(pins: "Pins") -> bool:
        _demand_valid(pins, wanted)
        added = {pin.reference: pin for pin in [await pins.add(text, platforms) for text in wanted]}
        for pin in added.values():
            output.note(f"pinned {pin.reference} for {', '.join(pin.platforms)}")
        if no_fetch:
            return True
        from app.cli.fetching import fetch

        return await fetch(pins, list(added.values()))

    _end(_run(config, work))


@commands.command("remove")
def remove(references: References = None, file: Lists = None, config: options.ConfigFile = None) -> None:
    """Forgets pins; what they kept stays until it is evicted."""
    wanted = _references(references, file)

    async def work(pins: "Pins") -> bool:
        gone = [await pins.remove(text) for text in wanted]
        for text, known in zip(wanted, gone, strict=True):
            if known:
                output.note(f"removed {text}")
            else:
                output.complain(f"{text} is not pinned")
        return all(gone)

    _end(_run(config, work))


@commands.command("list")
def show(config: options.ConfigFile = None) -> None:
    """Prints the pins, one a line, each with its platforms."""

    async def work(pins: "Pins") -> bool:
        found = await pins.all()
        width = max((len(pin.reference) for pin in found), default=0)
        for pin in found:
            output.say(f"{pin.reference:<{width}}  {','.join(pin.platforms)}")
        if not found:
            output.note("nothing is pinned; `edge-registry pin add REF` does it")
        return True

    _end(_run(config, work))


@commands.command("sync")
def sync(config: options.ConfigFile = None) -> None:
    """Fetches what is missing or has moved, now."""

    async def work(pins: "Pins") -> bool:
        from app.cli.fetching import fetch

        return await fetch(pins, await pins.all())

    _end(_run(config, work))


@commands.command("status")
def status(
    config: options.ConfigFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Says whether it is safe to disconnect: whether all that is pinned is here, or what and how much is missing.

    No upstream is asked. The exit status is 0 where everything is here, 1 where something is missing or nothing is
    pinned.
    """

    async def work(pins: "Pins") -> bool:
        found = await _states(pins)
        if as_json:
            output.say(json.dumps(_document(found), indent=2))
        else:
            _print(found)
        return _is_safe(found)

    _end(_run(config, work))


@dataclass(frozen=True, slots=True)
class State:
    """What of an image is here: `trouble` is None where all of it is, `survey` is None where nothing is known."""

    image: str
    pin: "Pin"
    survey: "Survey | None"
    trouble: str | None


async def _states(pins: "Pins") -> list[State]:
    from app.proxy.pins import lacking

    found = []
    for pin in await pins.all():
        try:
            images = await pins.images(pin, ask=False)
        except RegistryError as error:
            found.append(State(pin.reference, pin, None, error.message))
            continue
        if not images:
            found.append(State(pin.reference, pin, None, "nothing that it means is here"))
        for image in images:
            survey = await pins.status(image)
            trouble = "nothing of it is here" if survey is None else lacking(survey)
            found.append(State(str(image), pin, survey, trouble))
    return found


def _is_safe(found: Sequence[State]) -> bool:
    return bool(found) and all(state.trouble is None for state in found)


def _print(found: Sequence[State]) -> None:
    width = max((len(state.image) for state in found), default=0)
    for state in found:
        size = size_text(state.survey.size) if state.survey else ""
        output.say(f"{state.image:<{width}}  {state.trouble or f'complete, {size}'}")
    output.say(_verdict(found))


def _verdict(found: Sequence[State]) -> str:
    """The last line."""
    if not found:
        return "nothing is pinned"
    bad = [state for state in found if state.trouble is not None]
    if not bad:
        platforms = {state.pin.platforms for state in found}
        many = f"all {len(found)} images" if len(found) > 1 else "the one image"
        what = f"{many} complete for {', '.join(platforms.pop())}" if len(platforms) == 1 else f"{many} complete"
        return f"{what}: safe to disconnect"
    missing, unknown = _missing(bad)
    least = "at least " if unknown else ""
    verb = "is" if len(bad) == 1 else "are"
    return f"{len(bad)} of {len(found)} images {verb} incomplete: {least}{size_text(missing)} missing"


def _missing(found: Sequence[State]) -> tuple[int, bool]:
    """Bytes of distinct blobs that are missing, and whether there may be more."""
    surveys = [state.survey for state in found]
    sizes = {blob.digest: blob.size for survey in surveys if survey for blob in survey.missing_blobs}
    return sum(sizes.values()), any(survey is None or survey.missing_manifests for survey in surveys)


def _document(found: Sequence[State]) -> dict[str, Any]:
    bad = [state for state in found if state.trouble is not None]
    missing, unknown = _missing(bad)
    return {
        "safe": _is_safe(found),
        "images": [_entry(state) for state in found],
        "complete": len(found) - len(bad),
        "incomplete": len(bad),
        "missing_bytes": missing,
        "missing_bytes_exact": not unknown,
    }


def _entry(state: State) -> dict[str, Any]:
    survey = state.survey
    return {
        "image": state.image,
        "pin": state.pin.reference,
        "platforms": list(state.pin.platforms),
        "complete": state.trouble is None,
        "trouble": state.trouble,
        "bytes": survey.size if survey else None,
        "missing_manifests": len(survey.missing_manifests) if survey else None,
        "missing_blobs": len(survey.missing_blobs) if survey else None,
        "missing_bytes": survey.missing_bytes if survey else None,
        "absent_platforms": survey.absent if survey else [],
    }


def _run(config: Path | None, work: "Callable[[Pins], Awaitable[T]]") -> T:
    """Does something with the pins. Raises StartError, Failure."""
    settings = configuration.resolve(options.read(config).settings)
    from app.main import open_pins  # `--help` need not wait for the web framework

    async def run() -> T:
        async with open_pins(settings) as pins:
            return await work(pins)

    try:
        return asyncio.run(run())
    except RegistryError as error:
        raise Failure(error.message) from error


def _end(good: bool) -> None:
    if not good:
        raise typer.Exit(1)


def _references(given: Sequence[str] | None, files: Sequence[str] | None) -> list[str]:
    """What is named, each once, in order. Raises StartError."""
    found = [*(given or []), *(reference for file in files or [] for reference in _listed(file))]
    if not found and not files:
        raise StartError("name an image, or a list of them with --file")
    return list(dict.fromkeys(found))


def _listed(file: str) -> Iterator[str]:
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise StartError(f"cannot read the list {file}: {reason}") from None
    for line in text.splitlines():
        reference = line.partition("#")[0].strip()
        if reference:
            yield reference


def _platforms(given: Sequence[str]) -> Iterator[str]:
    for platform in (part.strip() for text in given for part in text.split(",")):
        if not _PLATFORM.fullmatch(platform):
            raise StartError(f"{platform[:40]!r} is no platform such as linux/arm64, and not `all`")
        yield platform


def _demand_valid(pins: "Pins", references: Sequence[str]) -> None:
    """Refuses all where one is wrong, with a line for each that is. Raises StartError."""
    problems = []
    for text in references:
        try:
            pins.parse(text)
        except RegistryError as error:
            problems.append(f"{text[:200]!r}: {error.message}")
    if problems:
        raise StartError("\n".join(problems))
