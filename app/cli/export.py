"""`edge-registry export`: images as one archive, or a folder, for where there is no network."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from app.cli import lists, options, output
from app.cli.opened import Opened, on_store
from app.cli.progress import watching
from app.cli.reading import readable
from app.errors import StartError
from app.quantities import size_text

if TYPE_CHECKING:
    from app.oci.digests import Digest
    from app.transfer.exports.exporting import Export, Exporter, Wish
    from app.transfer.exports.targets import Written

_FORMATS: Final = ("combined", "oci", "docker", "oci-dir")
_STREAM: Final = "-"


_References = Annotated[
    list[str] | None,
    typer.Argument(metavar="IMAGE", help="Images, or globs such as `team/*:v1.*`.", show_default=False),
]
_Output = Annotated[
    str, typer.Option("--output", "-o", metavar="FILE", help="A file, a folder, or - for standard output.")
]
_Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="|".join(_FORMATS),
        help="combined (without it) is read by docker load, ctr, skopeo, podman and `import`.",
    ),
]
_Gzip = Annotated[bool, typer.Option("--gzip", help="Compress the archive, as a name that ends with .gz or .tgz does.")]
_Platforms = Annotated[
    list[str] | None,
    typer.Option(
        "--platform",
        metavar="OS/ARCH",
        help="Such as linux/arm64, or `all`, which must be here; repeat it for more. Without it, all that are here.",
    ),
]
_Have = Annotated[
    list[str] | None,
    typer.Option(
        "--have",
        metavar="LIST",
        help="Leave out the blobs that the other side has: its inventory, or an archive that it was given.",
    ),
]
_Inventory = Annotated[
    bool, typer.Option("--inventory", help="Write what is here, for --have on the other side, and no image.")
]
_Referrers = Annotated[bool, typer.Option("--referrers", help="Take signatures, attestations and SBOMs along.")]
_Host = Annotated[
    str | None,
    typer.Option(
        "--host",
        metavar="NAME[:PORT]",
        help="Put this before names without an upstream, so that nodes know them as they pull them.",
    ),
]


@dataclass(frozen=True, slots=True)
class Target:
    """Where the archive goes: `path` is None for standard output."""

    path: Path | None
    form: str
    gzip: bool


def export(  # noqa: PLR0913  (options)
    references: _References = None,
    target: _Output = _STREAM,
    form: _Format = None,
    gzip: _Gzip = False,
    platform: _Platforms = None,
    file: options.ImageLists = None,
    have: _Have = None,
    inventory: _Inventory = False,
    referrers: _Referrers = False,
    host: _Host = None,
    as_json: options.AsJson = False,
    config: options.ConfigFile = None,
) -> None:
    """Writes images into one archive, layers that they share once.

    An image is named as it is pulled: `team/app:v1`, `team/app@sha256:...`, `docker.io/library/alpine:3` for what was
    cached. Nothing is fetched: what is not here is an error that names it. An index stays as it is, byte for byte, also
    where only some of its platforms go along. Blobs are checked while they are written; FILE appears whole or not at all,
    with FILE.sha256 beside it, and exporting the same images again gives the same bytes.

    `docker load` takes one platform: the first of --platform, else this machine's. Docker's own store keeps no manifest,
    so the digest is another one there; Docker with containerd's store takes all platforms, and keeps the digest, as
    containerd, skopeo and `import` do.

    For a site without a network: run `edge-registry export --inventory > have.txt` there, then here
    `edge-registry export 'team/*:*' --have have.txt -o delta.tar`, and there `edge-registry import delta.tar`.
    """
    if inventory:
        return _write_inventory(target, config)
    wanted, platforms = lists.named(references, file), lists.platforms(platform)
    if not wanted:
        raise StartError("name an image, or a list of them with --file")
    where = _target(target, form, gzip)
    if where.path is None and as_json:
        raise StartError("the archive and --json cannot both go to standard output: name a file with --output")
    known = _held(have or [])

    async def work(opened: Opened) -> None:
        from app.exports import create_exporter
        from app.transfer.exports.exporting import Format, Wish

        wish = Wish(wanted, Format(where.form), platforms, referrers=referrers, have=known, host=host)
        await _export(create_exporter(opened.settings, opened.bucket), wish, where, as_json)

    return on_store(config, work)


async def _export(exporter: "Exporter", wish: "Wish", target: Target, as_json: bool) -> None:
    prepared = await exporter.prepare(wish)
    for remark in prepared.remarks:
        output.warn(remark)
    written = await _write(prepared, target)
    document = _document(prepared, target, written)
    if as_json:
        output.say_json(document)
        return
    say = output.note if target.path is None else output.say
    for image in document["images"]:
        say("  ".join(part for part in (image["image"], image["digest"], ", ".join(image["platforms"])) if part))
    say(_summary(document))


async def _write(prepared: "Export", target: Target) -> "Written":
    from app.transfer.exports.targets import Pouring, Written, write_file, write_folder

    with watching("writing") as bars:
        bar = bars.begin(str(target.path or "standard output"))
        try:
            if target.path is None:
                tarball = prepared.tarball()
                pouring = Pouring(sys.stdout.buffer, gzip=target.gzip)
                return await pouring.pour(tarball.chunks(), lambda come: bar.show(come, tarball.size))
            if target.form == "oci-dir":
                return Written(await write_folder(target.path, prepared.contents.members, bar.show), "")
            tarball = prepared.tarball()
            return await write_file(
                target.path, tarball.chunks(), size=tarball.size, gzip=target.gzip, progress=bar.show
            )
        finally:
            bar.end()


def _document(prepared: "Export", target: Target, written: "Written") -> dict[str, Any]:
    """What was written, for people and programs."""
    contents = prepared.contents
    return {
        "output": str(target.path or _STREAM),
        "format": target.form,
        "bytes": written.size,
        "sha256": written.sha256 or None,
        "images": [
            {
                "image": str(image.chosen),
                "digest": image.chosen.entry.digest,
                "platforms": image.platforms,
                "absent_platforms": image.absent,
                "referrers": [str(referrer) for referrer in image.referrers],
            }
            for image in prepared.images
        ],
        "blobs": sum(member.digest is not None for member in contents.members),
        "left_out": len(contents.left_out),
        "left_out_bytes": sum(part.size for part in contents.left_out),
        "warnings": list(prepared.remarks),
    }


def _summary(document: Any) -> str:
    many = len(document["images"])
    words = f"{'1 image' if many == 1 else f'{many} images'}, {size_text(document['bytes'])} written"
    if document["left_out"]:
        words += f", {size_text(document['left_out_bytes'])} left out: only `edge-registry import` can take it"
    return words


def _write_inventory(target: str, config: Path | None) -> None:
    async def work(opened: Opened) -> None:
        from app.exports import create_exporter
        from app.transfer.exports.targets import Pouring, write_text

        lines = create_exporter(opened.settings, opened.bucket).inventory()
        if target == _STREAM:
            await Pouring(sys.stdout.buffer).pour(lines, lambda _: None)
        else:
            await write_text(Path(target), lines)

    on_store(config, work)


def _held(files: Sequence[str]) -> "set[Digest]":
    """What the other side has. Raises StartError."""
    if not files:
        return set()
    from app.transfer.exports.inventory import held

    found: set[Digest] = set()
    for file in files:
        with readable(file):
            found |= held(sys.stdin if file == _STREAM else Path(file))
    return found


def _target(text: str, form: str | None, gzip: bool) -> Target:
    """Raises StartError."""
    if form is not None and form not in _FORMATS:
        raise StartError(f"{form[:40]!r} is no format: there are {', '.join(_FORMATS)}")
    path = None if text == _STREAM else Path(text)
    folder = path is not None and (text.endswith("/") or path.is_dir())
    form = form or ("oci-dir" if folder else "combined")
    gzip = gzip or text.endswith((".gz", ".tgz"))
    if folder and form != "oci-dir":
        raise StartError(f"{text} is a folder, and --format {form} makes a file")
    if path is None and form == "oci-dir":
        raise StartError("name the folder with --output")
    if form == "oci-dir" and gzip:
        raise StartError("a folder cannot be compressed")
    if path is None and sys.stdout.isatty():
        raise StartError("an archive is nothing for a terminal: name a file with --output")
    if path is not None and not path.absolute().parent.is_dir():
        raise StartError(f"there is no folder {path.absolute().parent}")
    return Target(path, form, gzip)
