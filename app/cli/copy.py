"""`edge-registry copy`: images of other registries, brought here over the API."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli import lists, options, output
from app.cli.opened import Opened, on_store
from app.cli.reading import readable
from app.errors import StartError

if TYPE_CHECKING:
    from pydantic import SecretStr

    from app.transfer.copying.selection import Selection

_Sources = Annotated[
    list[str] | None,
    typer.Argument(metavar="SOURCE", help="Images, repositories, registries, or globs of them.", show_default=False),
]
_To = Annotated[
    str | None,
    typer.Option(
        "--to",
        metavar="PREFIX",
        help="Put this before the names here. Without it, names are those of the source without its host.",
    ),
]
_AsName = Annotated[
    str | None, typer.Option("--as", metavar="NAME", help="The name here, for sources in one repository.")
]
_Platforms = Annotated[
    list[str] | None,
    typer.Option("--platform", metavar="OS/ARCH", help="Such as linux/arm64; repeat it for more. Without it, all."),
]
_Lists = Annotated[
    list[str] | None,
    typer.Option(
        "--file", metavar="LIST", help="A file of sources, one a line; `#` begins a comment; - is standard input."
    ),
]
_NoReferrers = Annotated[
    bool, typer.Option("--no-referrers", help="Leave signatures, attestations and SBOMs where they are.")
]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be copied, and write nothing.")]
_Username = Annotated[str | None, typer.Option("--username", metavar="USER", help="Log in to the source.")]
_PasswordFile = Annotated[
    str | None,
    typer.Option("--password-file", metavar="FILE", help="Holds the password; - is standard input."),
]
_Authfile = Annotated[
    Path | None,
    typer.Option(
        "--authfile", metavar="FILE", help="Logins as docker, podman or skopeo wrote them.", show_default=False
    ),
]
_Ca = Annotated[
    Path | None, typer.Option("--ca", metavar="FILE", help="The authority of the source, besides the system's.")
]
_Cert = Annotated[Path | None, typer.Option("--cert", metavar="FILE", help="Our client certificate.")]
_Key = Annotated[Path | None, typer.Option("--key", metavar="FILE", help="Its key.")]
_Insecure = Annotated[bool, typer.Option("--insecure", help="Do not verify the source's certificate.")]
_PlainHttp = Annotated[bool, typer.Option("--plain-http", help="The source speaks no TLS.")]
_TokenHosts = Annotated[
    list[str] | None,
    typer.Option("--token-host", metavar="HOST", help="A further host whose token service may see the login."),
]
_AllowPrivate = Annotated[
    bool, typer.Option("--allow-private", help="Follow the source's redirects to private addresses.")
]
_Retries = Annotated[
    int, typer.Option("--retries", metavar="N", min=0, help="How often what fails for the moment is tried again.")
]


def copy(  # noqa: PLR0913  (options)
    sources: _Sources = None,
    to: _To = None,
    as_name: _AsName = None,
    platform: _Platforms = None,
    file: _Lists = None,
    no_referrers: _NoReferrers = False,
    dry_run: _DryRun = False,
    as_json: options.AsJson = False,
    username: _Username = None,
    password_file: _PasswordFile = None,
    authfile: _Authfile = None,
    ca: _Ca = None,
    cert: _Cert = None,
    key: _Key = None,
    insecure: _Insecure = False,
    plain_http: _PlainHttp = False,
    token_host: _TokenHosts = None,
    allow_private: _AllowPrivate = False,
    retries: _Retries = 4,
    config: options.ConfigFile = None,
) -> None:
    """Copies images from other registries into this one, as skopeo sync does, without a server between.

    A source is `quay.io/org/app:v1`, `quay.io/org/app@sha256:...`, `quay.io/org/app` (all its tags),
    `quay.io/org/app:v1.*`, or, where the registry lists its repositories, `old.example:5000/team/*` and
    `old.example:5000` (everything). `quay.io/org/app:v1` becomes `org/app:v1` here, and `mirror/org/app:v1` with
    `--to mirror`.

    Digests stay what they are: manifests come byte for byte, indexes with all their platforms, or with those of
    --platform, and with them what signs and describes them. Everything is checked against its digest before it is kept,
    what is here already is linked and not fetched, and a tag appears once all of its image is here. Ended in any way,
    the same command goes on where it was. A tag that is here already follows the source's.

    A source that is one of proxy.upstreams is dialled as it is configured. Others: with the options below, and the
    logins of docker, podman or skopeo on this machine.

    Exit status: 0 when everything is here, 1 when something is not; the rest is copied all the same.
    """
    wanted, platforms = _selections(lists.named(sources, file)), lists.platforms(platform or ["all"])
    if to is not None and as_name is not None:
        raise StartError("--to and --as are two ways to say one thing")
    _demand_whole(wanted, username, password_file, cert, key)
    from app.transfer.copying.dialling import Options

    dialling = Options(
        username=username,
        password=_password(password_file),
        logins=authfile,
        ca=ca,
        certificate=cert,
        key=key,
        verify=not insecure,
        plain_http=plain_http,
        token_hosts=token_host or [],
        allow_private=allow_private,
        retries=retries,
    )

    async def work(opened: Opened) -> bool:
        from app.cli.copying import run
        from app.transfer.copying.image import Rules

        rules = Rules(platforms, referrers=not no_referrers, dry=dry_run)
        return await run(opened, wanted, rules, dialling, to=to, as_name=as_name, as_json=as_json)

    output.end(on_store(config, work))


def _selections(texts: Sequence[str]) -> "list[Selection]":
    """Raises StartError."""
    from app.transfer.copying.selection import parse_selection

    if not texts:
        raise StartError("name a source, or a list of them with --file")
    return lists.parsed(texts, parse_selection)


def _demand_whole(
    wanted: "Sequence[Selection]", username: str | None, password_file: str | None, cert: Path | None, key: Path | None
) -> None:
    """Raises StartError for options that do not go together: a password goes to one host only."""
    if (username is None) != (password_file is None):
        raise StartError("--username and --password-file go together")
    if (cert is None) != (key is None):
        raise StartError("--cert and --key go together")
    if username is not None and len({selection.host for selection in wanted}) > 1:
        raise StartError("--username is for sources on one host: log in with docker or skopeo, and leave it out")


def _password(file: str | None) -> "SecretStr | None":
    """The password in a file, or on the first line of standard input. Raises StartError."""
    if file is None:
        return None
    from pydantic import SecretStr

    with readable("the password"):
        text = sys.stdin.readline() if file == "-" else Path(file).read_text(encoding="utf-8")
    password = text.rstrip("\r\n")
    if not password:
        raise StartError("the password is empty")
    return SecretStr(password)
