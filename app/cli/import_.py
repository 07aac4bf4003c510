"""`edge-registry import`: archives of images, published as they would be pushed."""

import glob
import os
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from app.cli import lists, options, output
from app.cli.opened import Opened, on_store
from app.cli.progress import Watching, watching
from app.errors import StartError
from app.oci.errors import RegistryError
from app.quantities import size_text

if TYPE_CHECKING:
    from app.transfer.imports.importing import Imported, Importer, Wish

_STREAM: Final = "-"
_PIECE: Final = 1 << 20


_Paths = Annotated[
    list[str] | None,
    typer.Argument(metavar="PATH", help="Archives, folders, globs; - is standard input.", show_default=False),
]
_Name = Annotated[
    str,
    typer.Option(
        "--name", metavar="REPOSITORY[:TAG]", help="What the image is called here, whatever the archive says."
    ),
]
_Prefix = Annotated[str, typer.Option("--prefix", metavar="PATH", help="Put this before the names of all images.")]
_KeepHost = Annotated[
    bool,
    typer.Option("--keep-host", help="Keep the registry in names also where it is no upstream: quay.io/org/app."),
]
_Platforms = Annotated[
    list[str] | None,
    typer.Option(
        "--platform", metavar="OS/ARCH", help="Of images for several platforms, only these; repeat it for more."
    ),
]
_Lists = Annotated[
    list[str] | None,
    typer.Option("--file", metavar="LIST", help="A file of archives, one a line; `#` begins a comment."),
]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be imported, and import nothing.")]


def import_(
    paths: _Paths = None,
    name: _Name = "",
    prefix: _Prefix = "",
    keep_host: _KeepHost = False,
    platform: _Platforms = None,
    file: _Lists = None,
    dry_run: _DryRun = False,
    as_json: options.AsJson = False,
    config: options.ConfigFile = None,
) -> None:
    """Imports images from archives: what docker save, podman save, skopeo, crane, ctr and buildx write.

    An archive is a tar file, as it is or compressed by gzip, zstd, bzip2 or xz, or an OCI layout in a folder; a folder of
    archives stands for all that are in it. Nothing is unpacked to a disk. Every byte is checked against its digest, and
    each image is published whole or not at all; digests stay what they were wherever the archive has a manifest.

    An image keeps its name. `docker.io/library/alpine:3`, or `alpine:3`, which means the same, becomes what clients ask
    for through a mirror: with an upstream docker.io, its docker.io/library/alpine, as if it had been pulled; without one,
    library/alpine. The registry is left out where it is no upstream (--keep-host keeps it), and where it is this one.
    localhost/app is app. --name and --prefix put an image anywhere else.

    Layers of `docker save` are not compressed, and stay as they are. An index of several platforms is kept, byte for byte,
    also where the archive has only some of them.

    The exit status is 1 where any image was not imported; the others were.
    """
    from app.transfer.imports.importing import Wish

    wish = Wish(name, prefix, keep_host, lists.platforms(platform, drop_all=True), dry_run, by="import")
    wanted = list(_expanded(lists.named(paths, file)))
    if name and len(wanted) > 1 and ":" in name.rpartition("/")[2]:
        raise StartError("--name with a tag is for one archive")
    found = on_store(config, lambda opened: _all_imported(opened, wanted, wish, quiet=as_json))
    if as_json:
        output.say_json(_document(found))
    output.end(all(result.good for result in found))


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one archive; `trouble` where nothing could be made of all of it."""

    path: str
    images: "Sequence[Imported]"
    trouble: str | None = None

    @property
    def good(self) -> bool:
        """Whether everything in it is here now."""
        return self.trouble is None and all(image.trouble is None for image in self.images)


async def _all_imported(opened: Opened, paths: Sequence[str], wish: "Wish", *, quiet: bool) -> list[Result]:
    from app.imports import create_importer

    importer = create_importer(opened.settings, opened.bucket)
    with watching("importing") as bars:
        return [await _imported(importer, path, wish, bars, quiet=quiet) for path in paths]


async def _imported(importer: "Importer", path: str, wish: "Wish", bars: Watching, *, quiet: bool) -> Result:
    bar = bars.begin("standard input" if path == _STREAM else path)
    try:
        if path == _STREAM:
            result = Result(path, await importer.from_stream(_stdin(bar.show), wish))
        else:
            result = Result(path, await importer.from_path(Path(path), wish, bar.show))
    except RegistryError as error:
        result = Result(path, [], error.message)
    except OSError as error:
        result = Result(path, [], error.strerror or str(error))
    finally:
        bar.end()
    for line in _complaints(result):
        output.complain(line)
    if not quiet:
        for line in _lines(result, dry_run=wish.dry_run):
            output.say(line)
    return result


def _lines(result: Result, *, dry_run: bool) -> Iterator[str]:
    for image in result.images:
        if image.trouble is None:
            verb = "would be" if dry_run else "is"
            size = (
                f"{size_text(image.size)}, {size_text(image.new)} of it new" if not dry_run else size_text(image.size)
            )
            rest = f"; {image.left_out} other platforms are not here" if image.left_out else ""
            yield f"{image.image} {verb} {image.name} ({image.digest}, {size}{rest})"


def _complaints(result: Result) -> Iterator[str]:
    if result.trouble is not None:
        yield f"{result.path}: {result.trouble}"
    for image in result.images:
        if image.trouble is not None:
            yield f"{result.path}: {image.image}: {image.trouble}"


def _document(found: Sequence[Result]) -> dict[str, Any]:
    from app.api.imports import described

    return {
        "complete": all(result.good for result in found),
        "archives": [
            {
                "path": result.path,
                "trouble": result.trouble,
                "images": [described(image) for image in result.images],
            }
            for result in found
        ],
    }


async def _stdin(show: Any) -> AsyncIterator[bytes]:
    import asyncio

    come = 0
    while chunk := await asyncio.to_thread(sys.stdin.buffer.read, _PIECE):
        come += len(chunk)
        show(come, 0)
        yield chunk


def _expanded(given: Sequence[str]) -> Iterator[str]:
    """Every archive that is meant. Raises StartError where something means none."""
    from app.transfer.imports.watching import archives, is_layout

    if not given:
        raise StartError("name an archive, a folder of them, or - for standard input")
    if _STREAM in given and sys.stdin.isatty():
        raise StartError(
            "standard input is a terminal: give it an archive, as in `docker save IMAGE | edge-registry import -`"
        )
    for text in given:
        found = [text] if text == _STREAM or os.path.lexists(text) else sorted(glob.glob(text, recursive=True))
        if not found:
            raise StartError(f"{text}: there is no such file or folder")
        for path in found:
            if path == _STREAM or not os.path.isdir(path) or is_layout(Path(path)):
                yield path
                continue
            inside = sorted(os.path.join(path, seen.path) for seen in archives(Path(path)))
            if not inside:
                raise StartError(f"{path}: there is no archive in this folder")
            yield from inside
