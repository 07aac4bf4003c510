"""`edge-registry doctor`: what is wrong with an installation, and the one thing to do about each of it."""

import asyncio
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from app import configuration
from app.cli import options, output
from app.cli.reading import password_on_stdin
from app.doctor.groups import Group
from app.errors import StartError

if TYPE_CHECKING:
    from app.cli.examination import Asked, Examination
    from app.doctor.over_http import Login
    from app.doctor.report import Report

_LOADING = 10.0
_STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red", None: "bold"}


_Groups = Annotated[list[Group] | None, typer.Option("--only", help="Look at this group alone; repeat it for more.")]
_Hosts = Annotated[
    list[str] | None,
    typer.Option(metavar="HOST:PORT", help="The registry as image names begin, besides http.public_url. Repeat it."),
]
_Url = Annotated[
    str | None,
    typer.Option(metavar="URL", help="A registry that runs; without it, the one that runs here, if any."),
]
_User = Annotated[str | None, typer.Option(metavar="NAME", help="The user who pushes and pulls there.")]
_PasswordStdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read that user's password from standard input.")
]
_Authority = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The registry's authority; without it, the one in http.tls.certificate."),
]
_PullSecret = Annotated[
    Path | None, typer.Option(metavar="FILE", help="A pull secret, as `kubectl get secret -o yaml` shows it.")
]
_Root = Annotated[
    Path, typer.Option(metavar="FOLDER", help="Where the file system of the host is whose clients are looked at.")
]
_Bundle = Annotated[
    Path | None,
    typer.Option(metavar="FILE.tar.gz", help="Also pack what was found, without secrets, for who helps."),
]


def doctor(  # noqa: PLR0913 (its options)
    only: _Groups = None,
    host: _Hosts = None,
    url: _Url = None,
    user: _User = None,
    password_stdin: _PasswordStdin = False,
    ca: _Authority = None,
    pull_secret: _PullSecret = None,
    root: _Root = Path("/"),
    bundle: _Bundle = None,
    as_json: options.AsJson = False,
    config: options.ConfigFile = None,
) -> None:
    """Examines an installation and says what to do where something is wrong.

    A line a check: ok, warning or failed, what was found, and one fix. It changes nothing: what it writes to try the
    store, or pushes to a registry that runs, is its own, and it removes it again. Exit status: 0 nothing failed, 1
    something did, 2 it could not be examined.
    """
    from app.cli.examination import Asked
    from app.nodes.site import parse_host

    asked = Asked(
        groups=frozenset(only or Group),
        hosts=[parse_host(name) for name in host or []],
        ca=_authority(ca),
        ca_file=ca,
        url=_url(url),
        login=_login(user, password_stdin),
        pull_secret=pull_secret,
        root=root,
        config=config,
    )
    output.end(_examine(asked, bundle, as_json=as_json).sound)


def _examine(asked: "Asked", bundle: Path | None, *, as_json: bool) -> "Report":
    """The report, which is printed, and packed where `bundle` says. Raises StartError."""
    from app.doctor.limits import run

    examination, report, page = run(_examined(asked, with_metrics=bundle is not None))
    if bundle is not None:
        _pack(bundle, examination, report, page)
    if as_json:
        output.say_json(report.document())
    else:
        _print(report)
    return report


async def _examined(asked: "Asked", *, with_metrics: bool) -> "tuple[Examination, Report, str]":
    """The examination, what it found, and the configuration as a page of the bundle. Raises StartError."""
    from app.cli.examination import Examination
    from app.cli.installation import Installation

    try:
        found = await asyncio.wait_for(asyncio.to_thread(configuration.load, asked.config, os.environ), _LOADING)
        installation = Installation(found)
        examination, page = Examination(asked, installation, None), installation.page()
    except StartError as exc:
        examination, page = Examination(asked, None, str(exc)), f"{exc}\n"
    except TimeoutError:
        raise StartError(f"the configuration cannot be read within {_LOADING:g} s") from None
    report = await examination.run()
    if with_metrics:
        await examination.fetch_metrics()
    return examination, report, page


def _pack(path: Path, examination: "Examination", report: "Report", page: str) -> None:
    from app.doctor import bundle

    pages = {
        "report.txt": "".join(f"{line}\n" for _, line in report.lines()),
        "report.json": json.dumps(report.document(), indent=2),
        "configuration.txt": page,
        "versions.txt": bundle.versions(examination.versions),
        "metrics.txt": examination.metrics or "no registry that answers was found\n",
    }
    bundle.write_bundle(path, pages, examination.secrets)
    output.note(f"packed {path}; look through it before you pass it on")


def _print(report: "Report") -> None:
    console = Console(highlight=False, soft_wrap=True)
    for verdict, line in report.lines():
        if console.is_terminal:
            console.print(Text(line, style=_STYLES[verdict]))
        else:
            output.say(line)


def _authority(path: Path | None) -> str | None:
    if path is None:
        return None
    from app.nodes.site import parse_certificates

    try:
        return parse_certificates(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise StartError(f"cannot read the authority {path}: {exc.strerror}") from None
    except UnicodeDecodeError:
        raise StartError(f"{path} is no certificate in PEM form") from None


def _url(text: str | None) -> str | None:
    from app.doctor.over_http import is_url

    if text is not None and not is_url(text):
        raise StartError("--url must be the URL of a registry, such as https://registry.example:5045")
    return text


def _login(user: str | None, password_stdin: bool) -> "Login | None":
    from app.doctor.over_http import Login

    if (user is not None) != password_stdin:
        raise StartError("--user and --password-stdin go together")
    if user is None:
        return None
    password = password_on_stdin()
    if not password or ":" in user:
        raise StartError("the password on standard input is empty, or the user's name has a colon")
    return Login(user, password)
