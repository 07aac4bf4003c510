"""`edge-registry rebuild`: writes anew what the store derives from links and manifests."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli import options, output
from app.cli.opened import Opened, on_store
from app.cli.stages import Stages

if TYPE_CHECKING:
    from app.upkeep.decay.rebuild import Rebuilt


def rebuild(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count what is missing; write nothing.")] = False,
    as_json: options.AsJson = False,
    config: options.ConfigFile = None,
) -> None:
    """Writes every derived key anew: the catalog, which repositories hold a blob, what refers to a manifest.

    For a store that was restored without them. Links and manifests are the truth; nothing is deleted, and what is right
    is not written again. Servers may go on meanwhile.

    The exit status is 1 where a manifest could not be read, so that what it refers to is not known, or a key not be written.
    """

    async def work(opened: Opened) -> "Rebuilt":
        from app.upkeep.decay.rebuild import rebuild as run

        with Stages() as stages:
            return await run(opened.bucket, stages.show, dry_run=dry_run)

    done = on_store(config, work)
    if as_json:
        output.say_json({"dry_run": dry_run, **asdict(done)})
    else:
        _print(done, dry_run=dry_run)
    output.end(not (done.unreadable or done.refused))


def _print(done: "Rebuilt", *, dry_run: bool) -> None:
    verb = "missing" if dry_run else "written"
    output.say(f"{verb}: {done.catalog} of the catalog, {done.holders} holders of blobs, {done.referrers} referrers")
    if done.unreadable:
        output.complain(
            f"{done.unreadable} of {done.manifests} manifests cannot be read; `edge-registry verify` names them"
        )
    if done.refused:
        output.complain(f"{done.refused} keys could not be written: the store refuses them alone, so look at its disks")
