"""`edge-registry gc`: gives back the space of what nobody needs."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli import options, output
from app.cli.opened import Opened, on_store
from app.cli.stages import Stages
from app.errors import StartError
from app.quantities import size_text

if TYPE_CHECKING:
    from app.upkeep.garbage.reports import Report

_DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would go; change nothing.")]
_MaxShare = Annotated[
    float | None,
    typer.Option(
        "--max-share",
        metavar="SHARE",
        min=0,
        max=1,
        help="Delete nothing where more than this share of all bytes would go; unset: upkeep.max_share.",
        show_default=False,
    ),
]
_Force = Annotated[bool, typer.Option("--force", help="As --max-share 1: however much it is.")]
_Last = Annotated[bool, typer.Option("--last", help="Show the report of the last collection instead.")]


def gc(
    dry_run: _DryRun = False,
    max_share: _MaxShare = None,
    force: _Force = False,
    last: _Last = False,
    as_json: options.AsJson = False,
    config: options.ConfigFile = None,
) -> None:
    """Collects garbage: deletes what no manifest needs, while servers and clients go on.

    What goes is older than the grace period of two days: blobs that no manifest of their repositories names, bytes that nothing
    links (these when a collection two days earlier found them so too), uploads that were given up, and what is left over
    of upkeep itself. Servers do this by themselves, every upkeep.interval; any number may at once.

    The last reports are kept in the bucket. The exit status is 1 where nothing could safely be deleted: a manifest
    cannot be read, or more than the allowed share would go.
    """
    if last:
        document = on_store(config, _last)
        if document is None:
            raise StartError("there is no report of a collection in this store")
    else:
        share = 1.0 if force else max_share
        document = on_store(config, lambda opened: _collect(opened, share, dry_run=dry_run)).document()
    if as_json:
        output.say_json(document)
    else:
        _print(document)
    output.end(document["state"] == "done")


async def _collect(opened: Opened, share: float | None, *, dry_run: bool) -> "Report":
    from app.upkeep.garbage.garbage import Garbage, Order

    garbage = Garbage(opened.bucket, opened.settings.upkeep)
    most = opened.settings.upkeep.max_share if share is None else share
    try:
        with Stages() as stages:
            return await garbage.collect(Order(most, dry_run, stages.show))
    finally:
        await garbage.close()


async def _last(opened: Opened) -> dict[str, Any] | None:
    from app.upkeep.garbage import reports

    return await reports.last(opened.bucket)


def _print(report: dict[str, Any]) -> None:
    output.say(f"{report['blobs']:,} blobs, {size_text(report['bytes'])}; {report['objects']:,} keys were looked at")
    verb = "would go" if report["dry_run"] else "gone"
    for kind, gone in report["gone"].items():
        if gone["count"]:
            size = f", {size_text(gone['bytes'])}" if gone["bytes"] else ""
            output.say(f"  {verb}: {gone['count']:,} {kind}{size}")
    for why, count in report["kept"].items():
        output.say(f"  kept: {count:,} blobs that seemed free: {why}")
    if report["suspects"]["count"]:
        suspects = report["suspects"]
        output.say(f"  next time: {suspects['count']:,} blobs that nothing links, {size_text(suspects['bytes'])}")
    for manifest in report["unreadable"]:
        output.say(f"  cannot be read: {manifest}")
    if report["state"] != "done":
        output.complain(f"{report['state']}: {report['reason']}")
        return
    freed = f"{size_text(report['freed'])} {'would be' if report['dry_run'] else ''} freed".replace("  ", " ")
    output.say(f"{freed}, in {report['seconds']:.1f} s")
