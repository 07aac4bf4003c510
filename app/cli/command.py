"""The command `edge-registry`: its verbs, and how every one of them ends."""

import os
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer
from typer.main import get_command

from app.cli import (
    adopt,
    backup,
    config,
    copy,
    doctor,
    export,
    gc,
    import_,
    node_config,
    node_setup,
    output,
    pin,
    pull_secret,
    rebuild,
    serve,
    setup,
    user,
    verify,
)
from app.cli.opened import taking_in
from app.cli.output import Failure
from app.errors import StartError
from storage.errors import StorageError

_INTERRUPTED = 130

_root = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="""An OCI container registry whose only state is a bucket, or a folder.

    `edge-registry serve` starts it. Each setting has a key (`http.port`) that can be given in a YAML file, in the
    environment (EDGE_REGISTRY_HTTP__PORT) and, for some, as an option, each winning over the one before;
    `edge-registry config show` lists them all. A secret can be given as the name of a file that holds it, with `_FILE`
    (in YAML `_file`) behind its name. The `REGISTRY_*` variables and the YAML of CNCF Distribution are understood.

    Exit status: 0 done; 1 it was tried and failed; 2 the configuration or the command is wrong.""",
)


def main() -> None:
    """Runs the command of `sys.argv` and exits; no error is a traceback unless it is a mistake of ours."""
    sys.exit(_run())


def _run() -> int:
    try:
        status = get_command(_root).main(prog_name=output.NAME, standalone_mode=False)
        sys.stdout.flush()
    except StartError as error:
        output.complain(str(error))
        return 2
    except typer.TyperException as error:
        output.complain(_usage(error))
        return 2
    except (Failure, StorageError) as error:
        output.complain(str(error) or type(error).__name__)
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has gone; Python flushes once more
        return 1
    except OSError as error:
        output.complain(": ".join(str(part) for part in (error.filename, error.strerror or error) if part))
        return 1
    except (KeyboardInterrupt, typer.Abort):
        return _INTERRUPTED
    return status if isinstance(status, int) else 0


def _usage(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    path = context.command_path if context else output.NAME
    return f"{' '.join(error.format_message().split()).rstrip('.')}; see `{path} --help`"


def _print_version(wanted: bool) -> None:
    if not wanted:
        return
    try:
        output.say(f"{output.NAME} {version(output.NAME)}")
    except PackageNotFoundError:
        output.say(f"{output.NAME}, run from its sources")
    raise typer.Exit


@_root.callback(invoke_without_command=True)
def _begin(
    context: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        output.say(context.get_help())


_root.command("serve")(serve.serve)
_root.add_typer(user.commands, name="user")
_root.add_typer(pin.commands, name="pin")
_root.add_typer(setup.commands, name="setup")
_root.add_typer(config.commands, name="config")
_root.command("node-config")(node_config.node_config)
_root.add_typer(node_setup.commands, name="node-setup")
_root.command("pull-secret")(pull_secret.pull_secret)
_root.command("doctor")(doctor.doctor)
_root.command("gc")(gc.gc)
_root.command("import")(taking_in(import_.import_))
_root.command("export")(export.export)
_root.command("adopt")(taking_in(adopt.adopt))
_root.command("copy")(taking_in(copy.copy))
_root.command("verify")(verify.verify)
_root.command("rebuild")(rebuild.rebuild)
_root.command("backup")(backup.backup)
_root.command("restore")(taking_in(backup.restore))
