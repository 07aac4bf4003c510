"""`edge-registry backup` and `restore`: the whole store into another one, and back."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app import configuration
from app.cli import options, output
from app.cli.opened import Opened, on_store
from app.cli.progress import counting
from app.errors import StartError
from app.quantities import size_text

if TYPE_CHECKING:
    from app.settings import Settings
    from app.transfer.backup.mirroring import Mirror, Mirrored
    from storage import Driver


def backup(
    to: Annotated[Path | None, typer.Option("--to", metavar="FOLDER", help="The folder of the copy.")] = None,
    to_config: Annotated[
        Path | None,
        typer.Option("--to-config", metavar="FILE", help="A configuration whose `storage` is the store of the copy."),
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Forget tags and manifests in the copy that are not here any more.")
    ] = False,
    as_json: options.AsJson = False,
    config: options.ConfigFile = None,
) -> None:
    """Copies the whole store into a folder or another bucket, while it is used.

    Nothing has to stand still: whatever is pushed, deleted and collected meanwhile, all that a tag or a manifest of the
    copy needs is in the copy, at every moment, and also when the run is ended half-way. Bytes are checked against their
    digest. A second run into the same copy moves only what is new. Users, certificates and configuration files are not in
    the store: keep them yourself.

    What is deleted here stays in the copy, unless --prune is given; then `edge-registry gc` on the copy frees its bytes.
    The copy is a store like any other: `edge-registry serve` and `verify` work on it.
    """

    async def work(opened: Opened) -> bool:
        from app.transfer.backup.mirroring import Mirror

        async with _opened(_named(opened.settings, to, to_config, "--to")) as copy:
            mirror = Mirror(opened.bucket.driver, copy, _told)
            return await _run(mirror, "backup", as_json=as_json, prune=prune)

    output.end(on_store(config, work))


def restore(
    source: Annotated[Path | None, typer.Option("--from", metavar="FOLDER", help="The folder of the copy.")] = None,
    from_config: Annotated[
        Path | None,
        typer.Option("--from-config", metavar="FILE", help="A configuration whose `storage` is the store of the copy."),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Go on with a restore that was ended half-way, before any server ran.")
    ] = False,
    as_json: options.AsJson = False,
    config: options.ConfigFile = None,
) -> None:
    """Brings a copy that `backup` made into this store, which must be empty and not yet served.

    Tags come last, each when all of its image is here. Afterwards `edge-registry verify` says whether everything is right,
    and `edge-registry serve` serves it.
    """

    if source is not None and not source.is_dir():
        raise StartError(f"there is no folder {source}")

    async def work(opened: Opened) -> bool:
        from app.registry import keys
        from app.transfer.backup.mirroring import Mirror

        driver = opened.bucket.driver
        if not again and (await driver.list(keys.REPOSITORIES, limit=1)).entries:
            raise StartError(
                "the store is not empty: names in it are never used twice, so a copy is restored into an empty one; "
                "after a restore that was ended half-way, say --again"
            )
        async with _opened(_named(opened.settings, source, from_config, "--from")) as copy:
            if not (await copy.list(keys.REPOSITORIES, limit=1)).entries:
                raise StartError("there is nothing in the copy")
            mirror = Mirror(copy, driver, _told, moves_tags=False)
            return await _run(mirror, "restore", as_json=as_json)

    output.end(on_store(config, work))


@asynccontextmanager
async def _opened(settings: "Settings") -> "AsyncIterator[Driver]":
    """The store of the copy. Raises StartError, StorageError."""
    from app.main import open_driver

    driver = open_driver(settings)
    try:
        await driver.start()
        yield driver
    finally:
        await driver.close()


def _named(settings: "Settings", folder: Path | None, config: Path | None, option: str) -> "Settings":
    """The settings of the copy's store. Raises StartError."""
    from storage.settings import FilesystemSettings, StorageSettings

    if folder is not None and config is None:
        storage = StorageSettings(driver="filesystem", filesystem=FilesystemSettings(root=folder))
        theirs = settings.model_copy(update={"storage": storage})
    elif config is not None and folder is None:
        theirs = configuration.resolve(configuration.load(config, {}, {}).settings)
    else:
        raise StartError(f"name the copy with {option} or {option}-config")
    if theirs.storage.driver == "memory":
        raise StartError("storage.driver is memory: nothing would be left of the copy")
    if _place(theirs) == _place(settings):
        raise StartError("the copy would be the store itself")
    return theirs


def _place(settings: "Settings") -> tuple[str | None, ...]:
    storage = settings.storage
    if storage.driver == "s3":
        return "s3", storage.s3.endpoint, storage.s3.bucket
    return storage.driver, str(storage.filesystem.root.resolve())


async def _run(mirror: "Mirror", title: str, *, as_json: bool, prune: bool = False) -> bool:
    with counting(title) as shown:
        mirror.watch = lambda done: shown.show(done, 0)
        await mirror.run()
        if prune:
            await mirror.prune()
    if as_json:
        output.say_json(asdict(mirror.done))
    else:
        output.say(_line(mirror.done))
    return mirror.done.failed == 0


def _told(key: str, trouble: str) -> None:
    output.complain(f"{key}: {trouble}")


def _line(done: "Mirrored") -> str:
    parts = [
        f"{done.tags} tags, {done.manifests} manifests and {done.blobs} blobs ({size_text(done.bytes)}) copied",
        f"{done.here} blobs there already",
        *([f"{done.gone} went away meanwhile"] if done.gone else []),
        *([f"{done.pruned} pruned"] if done.pruned else []),
        *([f"{done.failed} failed"] if done.failed else []),
    ]
    return "; ".join(parts)
