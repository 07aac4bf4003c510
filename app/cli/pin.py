"""`edge-registry pin`: images that are kept here whole, and whether it is safe to disconnect."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from app import configuration
from app.cli import lists, options, output
from app.cli.opened import finished
from app.errors import StartError
from app.oci.errors import RegistryError
from app.quantities import size_text

if TYPE_CHECKING:
    from app.proxy.images import Survey
    from app.proxy.pins import Pin, Pins

T = TypeVar("T")

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
Platforms = Annotated[
    list[str] | None,
    typer.Option(
        "--platform",
        metavar="OS/ARCH",
        help="Such as linux/arm64, or `all`; repeat it for more. Without it, this machine's.",
    ),
]
NoFetch = Annotated[bool, typer.Option("--no-fetch", help="Only remember; servers fetch in their next round.")]


@commands.command("add")
def add(
    references: References = None,
    file: options.ImageLists = None,
    platform: Platforms = None,
    no_fetch: NoFetch = False,
    config: options.ConfigFile = None,
) -> None:
    """Pins images and fetches them.

    An image that is pinned already is kept for the new platforms as well. Ended with Ctrl-C, the same command goes on
    where it was.
    """
    wanted, platforms = _named(references, file), lists.platforms(platform)

    async def work(pins: "Pins") -> bool:
        lists.parsed(wanted, pins.parse)  # all of them, before the first is remembered
        added = {pin.reference: pin for pin in [await pins.add(text, platforms) for text in wanted]}
        for pin in added.values():
            output.note(f"pinned {pin.reference} for {', '.join(pin.platforms)}")
        if no_fetch:
            return True
        from app.cli.fetching import fetch

        return await fetch(pins, list(added.values()))

    output.end(_run(config, work))


@commands.command("remove")
def remove(references: References = None, file: options.ImageLists = None, config: options.ConfigFile = None) -> None:
    """Forgets pins; what they kept stays until it is evicted."""
    wanted = _named(references, file)

    async def work(pins: "Pins") -> bool:
        gone = [await pins.remove(text) for text in wanted]
        for text, known in zip(wanted, gone, strict=True):
            if known:
                output.note(f"removed {text}")
            else:
                output.complain(f"{text} is not pinned")
        return all(gone)

    output.end(_run(config, work))


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

    output.end(_run(config, work))


@commands.command("sync")
def sync(config: options.ConfigFile = None) -> None:
    """Fetches what is missing or has moved, now."""

    async def work(pins: "Pins") -> bool:
        from app.cli.fetching import fetch

        return await fetch(pins, await pins.all())

    output.end(_run(config, work))


@commands.command("status")
def status(config: options.ConfigFile = None, as_json: options.AsJson = False) -> None:
    """Says whether it is safe to disconnect: whether all that is pinned is here, or what and how much is missing.

    No upstream is asked. The exit status is 0 where everything is here, 1 where something is missing or nothing is
    pinned.
    """

    async def work(pins: "Pins") -> bool:
        found = await _states(pins)
        if as_json:
            output.say_json(_document(found))
        else:
            _print(found)
        return _is_safe(found)

    output.end(_run(config, work))


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

    return finished(run())


def _named(references: Sequence[str] | None, files: Sequence[str] | None) -> list[str]:
    """Raises StartError, but not for files that name nothing."""
    found = lists.named(references, files)
    if not found and not files:
        raise StartError("name an image, or a list of them with --file")
    return found
