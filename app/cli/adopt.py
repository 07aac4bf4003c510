"""`edge-registry adopt`: takes over, in place, what CNCF Distribution keeps in the registry's bucket or folder."""

from typing import TYPE_CHECKING, Annotated

import typer

from app.cli import options, output
from app.cli.opened import Opened, on_store
from app.cli.progress import counting
from app.errors import StartError
from app.quantities import size_text

if TYPE_CHECKING:
    from app.transfer.adoption.report import Report


_Root = Annotated[
    str,
    typer.Option(
        "--root", metavar="FOLDER", help="Distribution's `rootdirectory` inside the bucket; without it, none."
    ),
]
_Repository = Annotated[
    str, typer.Option("--repository", metavar="GLOB", help="Only the repositories that match, such as `team/*`.")
]
_Prune = Annotated[
    bool, typer.Option("--prune", help="Take away tags that an earlier run brought and that are gone there.")
]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Look and report; write nothing.")]


def adopt(
    root: _Root = "",
    repository: _Repository = "*",
    prune: _Prune = False,
    dry_run: _DryRun = False,
    as_json: options.AsJson = False,
    config: options.ConfigFile = None,
) -> None:
    """Takes over what CNCF Distribution (registry:2, registry:3) keeps in this bucket or folder, in place.

    Layers are bound where they lie: none is moved or copied, and nothing below docker/registry/v2 is written, so the old
    registry goes on working. Run it again as long as that takes pushes: what is new there comes, a tag follows
    the old one until somebody pushes or deletes it here, and what was deleted here does not come back. Ended at any
    moment, the same command goes on where it was.

    The exit status is 1 where something that the old registry holds could not be taken over whole.
    """
    report, expires = on_store(config, lambda opened: _run(opened, root, repository, prune=prune, dry=dry_run))
    if as_json:
        output.say_json(report.document())
    else:
        _print(report)
    _warn(expires=expires, dry=dry_run)
    output.end(report.whole)


def _warn(*, expires: bool, dry: bool) -> None:
    """What the old registry would destroy from now on."""
    if expires:
        output.warn(
            "the old registry is a pull-through cache and deletes bytes after its `proxy.ttl`: stop it, or what was"
            " adopted here loses them"
        )
    if not dry:
        output.warn(
            "do not run the old registry's `garbage-collect` any more: it deletes bytes that are needed here and that it"
            " knows nothing of"
        )


async def _run(opened: Opened, root: str, names: str, *, prune: bool, dry: bool) -> tuple["Report", bool]:
    from app.transfer.adoption.adoption import Adoption
    from app.transfer.adoption.layout import Layout, parse_names, parse_root

    layout = Layout(opened.bucket.driver, parse_root(root), parse_names(names))
    if not await layout.exists():
        where = f"{layout.root}/docker/registry/v2" if layout.root else "docker/registry/v2"
        raise StartError(f"there is no {where} in the store: name Distribution's `rootdirectory` with --root")
    adoption = Adoption(opened.bucket, layout, prune=prune, dry=dry)
    with counting("adopting") as bar:
        total = await adoption.count() if bar.wants_total else 0
        report = await adoption.run(lambda done: bar.show(done, total))
    return report, await layout.expires()


def _print(report: "Report") -> None:
    done, found = report.done, report.found
    would = "would be " if report.dry else ""
    output.say(f"{report.repositories} repositories")
    output.say(
        f"{found['blobs']} blobs: {done['blobs_bound']} {would}bound where they lie"
        f" ({size_text(done['blob_bytes_bound'])}), {size_text(done['blob_bytes_copied'])} copied"
    )
    output.say(
        f"{found['manifests']} manifests: {done['manifests_written']} {would}written"
        f" ({size_text(done['manifest_bytes_written'])})"
    )
    output.say(
        f"{found['tags']} tags: {done['tags_written']} {would}written, {done['tags_moved']} {would}moved,"
        f" {done['tags_pruned']} pruned"
    )
    for kind, words in _WORDS.items():
        for note in report.notes[kind]:
            output.note(f"{words}: {note}")
        if report.counts[kind] > len(report.notes[kind]):
            output.note(f"{words}: and {report.counts[kind] - len(report.notes[kind])} more")


_WORDS = {"kept": "kept", "gone": "gone there", "sparse": "incomplete", "left": "left"}
