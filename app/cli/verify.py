"""`edge-registry verify`: compares the store with what it promises, and mends what can be mended."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from app import quantities
from app.cli import options, output
from app.cli.opened import Opened, on_store
from app.cli.stages import Stages
from app.errors import StartError
from app.quantities import size_text

if TYPE_CHECKING:
    from app.upkeep.decay.findings import Account, Finding
    from app.upkeep.decay.verify import Plan

_SampleShare = Annotated[
    str, typer.Option("--sample", metavar="SHARE", help="Hash the bytes of this share of all blobs, such as 5%.")
]
_Everything = Annotated[bool, typer.Option("--all", help="Hash the bytes of every blob.")]
_Repository = Annotated[
    str | None,
    typer.Option("--repository", metavar="GLOB", help="Only the repositories that match, such as `team/**`."),
]
_Repair = Annotated[bool, typer.Option("--repair", help="Mend what can be mended.")]
_Force = Annotated[
    bool,
    typer.Option(
        "--force",
        help="With --repair: give up what the store does not give, and take dead links away even where very many are.",
    ),
]
_Rate = Annotated[
    str | None,
    typer.Option(
        "--rate", metavar="SIZE", help="Hash at most so many bytes a second, such as 50MB.", show_default=False
    ),
]
_Last = Annotated[bool, typer.Option("--last", help="Show the report of the last run instead.")]


def verify(
    sample: _SampleShare = "5%",
    everything: _Everything = False,
    repository: _Repository = None,
    repair: _Repair = False,
    force: _Force = False,
    rate: _Rate = None,
    last: _Last = False,
    as_json: options.AsJson = False,
    config: options.ConfigFile = None,
) -> None:
    """Looks for decay in the store: lost and garbled bytes, broken manifests, tags and links.

    All sizes, links, manifests and tags are looked at; of the blobs, a share is read and hashed, and each run goes on
    where the last one ended. Servers may go on meanwhile. Without --repair nothing is written but the report.

    With --repair, what is lost or garbled comes from another copy in any repository, else from the upstream that fills the
    repository. Links to bytes that cannot be had again are taken away, so that clients push the layer again; garbled
    bytes themselves stay, noted below upkeep/quarantine/.

    The exit status is 1 where something is broken and was not mended.
    """
    share, limit = _share("100%" if everything else sample), _size(rate)
    if last:
        document = on_store(config, _last)
        if document is None:
            raise StartError("there is no report of a run in this store")
        _show_last(document, as_json=as_json)
        return output.end(document.get("broken") == 0)

    async def work(opened: Opened) -> "Account":
        return await _run(opened, await _plan(opened, share, repository, limit, repair, force), quiet=as_json)

    account = on_store(config, work, upstreams=True)
    if as_json:
        output.say_json(account.document())
    else:
        _print(account)
    return output.end(account.broken == 0)


async def _plan(
    opened: Opened, share: float, repository: str | None, rate: int | None, repair: bool, force: bool
) -> "Plan":
    """What to do; the sample begins where that of the last run over the same repositories ended. Raises StartError."""
    from app.upkeep.decay import accounts
    from app.upkeep.decay.sample import Sample
    from app.upkeep.decay.stocktaking import Scope
    from app.upkeep.decay.verify import Plan

    try:
        scope = Scope(repository)
    except ValueError as error:
        raise StartError(f"--repository: {error}") from None
    last = await accounts.last_of(opened.bucket, repository)
    start = accounts.sampled_until(last.document if last else None) if share < 1 else 0.0
    return Plan(scope, Sample(share, start), rate, repair, force)


async def _run(opened: Opened, plan: "Plan", *, quiet: bool) -> "Account":
    from app.upkeep.decay import accounts
    from app.upkeep.decay.verify import verify as run
    from storage import AccessDenied

    def tell(finding: "Finding") -> None:
        if not quiet:
            output.say(_line(finding))

    with Stages() as stages:
        account = await run(opened.bucket, opened.proxy, plan, tell, stages.show)
    try:
        await accounts.keep(opened.bucket, account)
    except AccessDenied:
        output.warn("the store does not let the report be written")
    return account


async def _last(opened: Opened) -> dict[str, Any] | None:
    """The last report. Where servers have failed to look since they last could, that is said."""
    from app.upkeep.decay import accounts

    whole, failed = await accounts.last_whole(opened.bucket), await accounts.last_failure(opened.bucket)
    if failed is not None and (whole is None or failed.at > whole.at):
        output.warn(f"a look that ended {failed.document['ended']} did not reach its end: {failed.document['failed']}")
    return await accounts.last(opened.bucket)


def _line(finding: "Finding") -> str:
    end = ""
    if finding.mended:
        end = f"; mended: {finding.mended}"
    elif finding.broken:
        end = f"; to mend it: {finding.remedy}"
    return f"{finding.kind}: {finding.place}: {finding.why}{end}"


def _print(account: "Account") -> None:
    checked = account.checked
    output.say(
        f"{checked['repositories']} repositories: {checked['manifests']} manifests, {checked['tags']} tags,"
        f" {checked['links']} links to {checked['copies']} blobs"
    )
    output.say(f"{checked['hashed']} blobs hashed: {size_text(checked['bytes'])}, in {account.seconds:.1f} s")
    if account.refused:
        output.warn(f"{account.refused}: no link was taken away; --force does it all the same")
    output.say(_verdict(account.broken, account.mended.total()))


def _verdict(broken: int, mended: int) -> str:
    if not (broken or mended):
        return "all is sound"
    return ", ".join(text for number, text in ((broken, f"{broken} broken"), (mended, f"{mended} mended")) if number)


def _show_last(document: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        output.say_json(document)
        return
    for found in document["findings"]:
        where = " ".join(str(found[part]) for part in ("repository", "tag", "digest") if part in found) or found.get(
            "key"
        )
        output.say(f"{found['kind']}: {where}: {found['why']}")
    output.say(f"{document['began']}: {_verdict(document['broken'], sum(document['mended'].values()))}")


def _share(text: str) -> float:
    """A share between 0 and 1. Raises StartError."""
    try:
        share = float(text.removesuffix("%")) / 100
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise StartError(f"--sample {text[:20]}: write a share such as 5%")
    return share


def _size(text: str | None) -> int | None:
    """Bytes a second. Raises StartError."""
    if text is None:
        return None
    try:
        size = int(quantities.size(text))
    except ValueError as error:
        raise StartError(f"--rate: {error}") from None
    if size <= 0:
        raise StartError("--rate must be more than nothing")
    return size
