"""`edge-registry setup`: what the registry needs around it, certificates and a bucket."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app import configuration
from app.cli import options, output
from app.cli.reading import readable
from app.errors import StartError
from storage.settings import S3Settings

if TYPE_CHECKING:
    from app.cli.bucket import Prepared

commands = typer.Typer(help="Makes what the registry needs around it: certificates, and a bucket with its own user.")

_ADMIN_HINT = "; pass --admin-access-key and --admin-secret-key, or set MINIO_ROOT_USER and MINIO_ROOT_PASSWORD"


@commands.command("certs")
def certs(
    name: Annotated[
        list[str],
        typer.Option("--name", help="A DNS name or address of the registry; repeat it for each.", show_default=False),
    ],
    folder: Annotated[
        Path, typer.Option(help="Where the files go; a folder that only you can read is best.", metavar="FOLDER")
    ] = Path("registry-certs"),
) -> None:
    """Makes a certificate authority and a server certificate signed by it.

    Repeat the command to add names or to renew: an authority that is there is used again, so clients that trust it need
    nothing new. The running server takes up a new certificate by itself. Keep ca.key away from the servers.
    """
    from app.tls.authority import make_certificates

    made = make_certificates(folder, name)
    output.note(f"{'made' if made.made_ca else 'kept'} the authority {made.ca}")
    output.note(
        f"{'made' if made.made_certificate else 'kept'} the certificate {made.certificate} for {', '.join(name)}"
    )
    output.note("for the server's configuration:")
    output.say(f"http:\n  tls:\n    certificate: {made.certificate.absolute()}\n    key: {made.key.absolute()}")
    output.note("for each Docker client:")
    output.note(f"  install -D {made.ca} /etc/docker/certs.d/{name[0]}:5045/ca.crt")


_Endpoint = Annotated[str | None, typer.Option(help="URL of MinIO; without it storage.s3.endpoint.", metavar="URL")]
_Bucket = Annotated[str | None, typer.Option(help="The bucket; without it storage.s3.bucket.", metavar="NAME")]
_AdminKey = Annotated[
    str | None, typer.Option(envvar="MINIO_ROOT_USER", help="An administrator of MinIO.", metavar="KEY")
]
_AdminSecret = Annotated[
    str | None,
    typer.Option(
        envvar="MINIO_ROOT_PASSWORD",
        help="The administrator's secret. Other people on this machine can see options: prefer the variable.",
        metavar="SECRET",
    ),
]
_AdminSecretFile = Annotated[
    Path | None,
    typer.Option(envvar="MINIO_ROOT_PASSWORD_FILE", help="A file that holds that secret.", metavar="FILE"),
]
_AccessKey = Annotated[
    str | None,
    typer.Option(help="The registry's user; without it storage.s3.access_key, else the bucket's name.", metavar="KEY"),
]
_SecretKey = Annotated[
    str | None,
    typer.Option(help="That user's secret; without it storage.s3.secret_key, else one is made.", metavar="SECRET"),
]


@commands.command("bucket")
def bucket(
    endpoint: _Endpoint = None,
    bucket: _Bucket = None,
    admin_access_key: _AdminKey = None,
    admin_secret_key: _AdminSecret = None,
    admin_secret_key_file: _AdminSecretFile = None,
    access_key: _AccessKey = None,
    secret_key: _SecretKey = None,
    config: options.ConfigFile = None,
) -> None:
    """Makes the bucket in MinIO, and a user that can do nothing but work in it.

    A secret that is made here is printed once, as the configuration to paste. Repeating the command changes nothing,
    except that the user gets the secret key that is given and the policy is brought up to date.
    """
    given: dict[str, dict[str, object]] = {
        option: {key: value}
        for option, key, value in (
            ("--endpoint", "storage.s3.endpoint", endpoint),
            ("--bucket", "storage.s3.bucket", bucket),
            ("--access-key", "storage.s3.access_key", access_key),
            ("--secret-key", "storage.s3.secret_key", secret_key),
        )
        if value is not None
    }
    store = options.read(config, given).settings.storage.s3
    if admin_secret_key is None and admin_secret_key_file is not None:
        admin_secret_key = _secret(admin_secret_key_file)
    if not admin_access_key or not admin_secret_key:
        raise StartError(f"the administrator's keys are missing{_ADMIN_HINT}")
    from app.cli.bucket import prepare

    _tell(store, prepare(store, admin_access_key, admin_secret_key))


def _tell(store: S3Settings, made: "Prepared") -> None:
    """What was made, and what to paste into the server's configuration."""
    output.note(f"{'made the bucket' if made.made_bucket else 'the bucket was there already:'} {store.bucket}")
    output.note(f"{'made the user' if made.made_user else 'the user was there already:'} {made.access_key}")
    if made.secret_key is not None:
        output.note("its secret key is shown this once; for the server's configuration:")
        _paste({**_connection(store.endpoint, store.bucket, made.access_key), "storage.s3.secret_key": made.secret_key})
    elif store.secret_key is None:
        output.note("its secret key stays as it is; give --secret-key to set another")


def _connection(endpoint: str | None, bucket: str, access_key: str) -> dict[str, str]:
    return {"storage.s3.endpoint": endpoint or "", "storage.s3.bucket": bucket, "storage.s3.access_key": access_key}


def _paste(values: dict[str, str]) -> None:
    """The same values twice, for the file and for the environment."""
    output.say("storage:\n  s3:")
    for key, value in values.items():
        output.say(f'    {key.rpartition(".")[2]}: "{value}"')
    output.say("# or, in the environment:")
    for key, value in values.items():
        output.say(f"# {configuration.variable(key)}={value}")


def _secret(path: Path) -> str:
    with readable(f"the administrator's secret from {path}"):
        return path.read_text(encoding="utf-8").rstrip("\r\n")
