"""`edge-registry import`: archives of images, published as they would be pushed."""

import glob
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from app.cli import options, output
from app.cli.lists import named
from app.cli.opened import Opened, on_store
from app.cli.progress import Watching, watching
from app.errors import StartError
from app.oci.errors import RegistryError
from app.quantities import size_text

if TYPE_CHECKING:
    from app.transfer.imports.importing import Imported, Importer, Wish

_PLATFORM: Final = re.compile(r"[a-z0-9]+/[a-z0-9_]+(/[a-z0-9.]+)?")
_STREAM: Final = "-"
_PIECE: Final = 1 << 20


def import_(
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="PATH", help="Archives, folders, globs; - is standard input.", show_default=False),
    ] = None,
    name: Annotated[
        str,
        typer.Option(
            "--name", metavar="REPOSITORY[:TAG]", help="What the image is called here, whatever the archive says."
        ),
    ] = "",
    prefix: Annotated[
        str, typer.Option("--prefix", metavar="PATH", help="Put this before the names of all images.")
    ] = "",
    keep_host: Annotated[
        bool,
        typer.Option("--keep-host", help="Keep the registry in names also where it is no upstream: quay.io/org/app."),
    ] = False,
    platform: Annotated[
        list[str] | None,
        typer.Option(
            "--platform", metavar="OS/ARCH", help="Of images for several platforms, only these; repeat it for more."
        ),
    ] = None,
    file: Annotated[
        list[str] | None,
        typer.Option("--file", metavar="LIST", help="A file of archives, one a line; `#` begins a comment."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be imported, and import nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
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

    wish = Wish(name, prefix, keep_host, list(_platforms(platform or [])), dry_run, by="import")
    wanted = list(_expanded(named(paths, file)))
    if name and len(wanted) > 1 and ":" in name.rpartition("/")[2]:
        raise StartError("--name with a tag is for one archive")

    async def work(opened: Opened) -> "list[Result]":
        from app.imports import create_importer

        importer = create_importer(opened.settings, opened.bucket)
        with watching("importing") as bars:
            return [await _imported(importer, path, wish, bars, quiet=as_json) for path in wanted]

    found = on_store(config, work)
    if as_json:
        output.say(json.dumps(_document(found), indent=2))
    if any(not result.good for result in found):
        raise typer.Exit(1)


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


def _platforms(given: Sequence[str]) -> Iterator[str]:
    for platform in (part.strip() for text in given for part in text.split(",")):
        if platform == "all":
            continue
        if not _PLATFORM.fullmatch(platform):
            raise StartError(f"{platform[:40]!r} is no platform such as linux/arm64")
        yield platform
