"""The four kinds of TLS to an upstream, and certificates that are wrong."""

import asyncio
import contextlib
import socket
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from app.errors import StartError
from app.proxy.errors import Failing, Portal, Unreachable
from app.tls.authority import Certificates, make_certificates
from tests.proxy.served import Logins, dial, serve


async def hello(request: web.Request) -> web.StreamResponse:
    return web.Response(body=b"hello")


@pytest.fixture
def made(tmp_path: Path) -> Certificates:
    return make_certificates(tmp_path / "server", ["localhost", "127.0.0.1"])


@dataclass(frozen=True)
class Pair:
    """A client's certificate, which signs itself, and its key."""

    certificate: Path
    key: Path


@pytest.fixture
def client_made(tmp_path: Path) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a client")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=1))
    pair = Pair(tmp_path / "client.pem", tmp_path / "client.key")
    pair.certificate.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    pair.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return pair


def server_context(made: Certificates, client: Pair | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, made.key)
    if client is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(client.certificate)
    return context


async def test_verified_against_an_authority_of_its_own(made: Certificates) -> None:
    async with serve(hello, server_context(made)) as upstream, dial(upstream.base, tls={"ca": made.ca}) as dialled:
        assert (await dialled.client.get("app", "manifests/1")).body == b"hello"
        assert dialled.reports == []


async def test_not_verified_and_that_is_reported_once(made: Certificates) -> None:
    async with serve(hello, server_context(made)) as upstream, dial(upstream.base, tls={"verify": False}) as dialled:
        for _ in range(2):
            assert (await dialled.client.get("app", "manifests/1")).body == b"hello"
        assert [level for level, _ in dialled.reports] == ["warning"]
        assert "up.test" in dialled.reports[0][1]


async def test_an_unknown_authority_is_named_as_the_fault(made: Certificates) -> None:
    async with serve(hello, server_context(made)) as upstream, dial(upstream.base) as dialled:
        with pytest.raises(Unreachable, match="signed by an authority that is not trusted"):
            await dialled.client.get("app", "manifests/1")
    assert upstream.requests == []


async def test_a_certificate_for_another_host_is_named_as_the_fault(tmp_path: Path) -> None:
    made = make_certificates(tmp_path / "other", ["another.example"])
    async with serve(hello, server_context(made)) as upstream:
        async with dial(upstream.named, tls={"ca": made.ca}) as dialled:
            with pytest.raises(Unreachable, match="is for another host"):
                await dialled.client.get("app", "manifests/1")
        async with dial(upstream.base, tls={"ca": made.ca}) as dialled:
            with pytest.raises(Unreachable, match="is for another address"):
                await dialled.client.ping()
    assert upstream.requests == []


@pytest.mark.parametrize("verify", [True, False])
async def test_a_client_certificate_is_shown(made: Certificates, client_made: Pair, verify: bool) -> None:
    tls = {"certificate": client_made.certificate, "key": client_made.key, "verify": verify}
    if verify:
        tls["ca"] = made.ca
    async with serve(hello, server_context(made, client_made)) as upstream, dial(upstream.base, tls=tls) as dialled:
        assert (await dialled.client.get("app", "manifests/1")).body == b"hello"


def refuse_handshakes(listener: socket.socket, context: ssl.SSLContext) -> None:
    """Says in an alert what is wrong, as Go's servers do and asyncio's does not; until the listener is closed."""
    while True:
        try:
            raw, _ = listener.accept()
        except OSError:
            return
        raw.settimeout(5)
        with context.wrap_socket(raw, server_side=True, do_handshake_on_connect=False) as connection:
            with contextlib.suppress(ssl.SSLError):
                connection.do_handshake()
            with socket.socket(fileno=connection.detach()) as rest, contextlib.suppress(OSError):
                rest.shutdown(socket.SHUT_WR)
                while rest.recv(4096):  # a close with bytes unread would be a reset, and the alert lost
                    pass


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_client_certificate_that_is_missing_is_named_as_the_fault(
    made: Certificates, client_made: Pair, version: ssl.TLSVersion
) -> None:
    context = server_context(made, client_made)
    context.minimum_version = context.maximum_version = version
    with socket.create_server(("127.0.0.1", 0)) as listener:
        refusing = asyncio.create_task(asyncio.to_thread(refuse_handshakes, listener, context))
        async with dial(f"https://127.0.0.1:{listener.getsockname()[1]}", tls={"ca": made.ca}) as dialled:
            with pytest.raises(Unreachable, match="client certificate"):
                await dialled.client.get("app", "manifests/1")
        listener.shutdown(socket.SHUT_RDWR)
        await refusing


async def test_an_nginx_that_wants_a_client_certificate_is_no_captive_portal(made: Certificates) -> None:
    async def nginx(request: web.Request) -> web.StreamResponse:
        return web.Response(status=400, body=b"<html>No required SSL certificate was sent", content_type="text/html")

    async with serve(nginx, server_context(made)) as upstream, dial(upstream.base, tls={"ca": made.ca}) as dialled:
        with pytest.raises(Failing, match="answered 400; it wants a client certificate"):
            await dialled.client.get("app", "manifests/1")


async def test_verification_is_off_for_the_upstream_alone(made: Certificates) -> None:
    """A host that it redirects to is verified, and a token service that is listed as well."""

    async def handler(request: web.Request) -> web.StreamResponse:
        if request.headers.get("X-Kind") == "token":
            return web.Response()
        if "/tokened/" in request.path:
            return web.Response(status=401, headers={"WWW-Authenticate": f'Bearer realm="{upstream.named}/token"'})
        return web.Response(status=307, headers={"Location": f"{upstream.named}/elsewhere"})

    async with serve(handler, server_context(made)) as upstream:
        settings = {"tls": {"verify": False}, "token_hosts": ["localhost"], "allow_private": True}
        async with dial(upstream.base, Logins(None), **settings) as dialled:
            for repository in ("app", "tokened/app"):
                with pytest.raises(Unreachable, match=r"up\.test: localhost cannot be trusted"):
                    await dialled.client.get(repository, "manifests/1")
    assert len(upstream.requests) == 2


async def test_https_does_not_become_http(made: Certificates) -> None:
    async with serve(hello) as plain:

        async def handler(request: web.Request) -> web.StreamResponse:
            return web.Response(status=307, headers={"Location": f"{plain.base}/x"})

        settings: dict[str, Any] = {"tls": {"ca": made.ca}, "allow_private": True}
        async with serve(handler, server_context(made)) as upstream, dial(upstream.base, **settings) as dialled:
            with pytest.raises(Portal, match="from https to http"):
                await dialled.client.get("app", "manifests/1")
        assert plain.requests == []


async def test_plain_http_behind_https_is_said() -> None:
    async with serve(hello) as plain, dial(plain.base.replace("http:", "https:")) as dialled:
        with pytest.raises(Unreachable, match="TLS failed"):
            await dialled.client.get("app", "manifests/1")


def encrypt(key: Path) -> Path:
    path = key.with_suffix(".encrypted")
    secret = load_pem_private_key(key.read_bytes(), None)
    path.write_bytes(secret.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")))
    return path


@pytest.mark.parametrize("damage", ["no ca", "bad ca", "no certificate", "other key", "encrypted"])
async def test_files_that_cannot_be_used_stop_the_start(
    damage: str, made: Certificates, client_made: Pair, tmp_path: Path
) -> None:
    tls = {
        "no ca": {"ca": tmp_path / "nothing.pem"},
        "bad ca": {"ca": made.ca_key},
        "no certificate": {"certificate": tmp_path / "nothing.pem", "key": made.key},
        "other key": {"certificate": made.certificate, "key": client_made.key},
        "encrypted": {"certificate": made.certificate, "key": encrypt(made.key)},
    }[damage]
    with pytest.raises(StartError, match=r"up\.test"):
        async with dial("https://up.test", tls=tls):
            pass
