"""The TLS context that takes a new certificate while it serves."""

import asyncio
import os
import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from app.errors import StartError
from app.tls.authority import Certificates, make_certificates
from app.tls.context import ReloadingContext

DAMAGES = ["other key", "other certificate", "truncated", "not pem", "missing", "encrypted"]


@dataclass
class Reports:
    """Collects what is reported, and lets a test wait for the next line."""

    lines: list[tuple[str, str]] = field(default_factory=list)
    came: asyncio.Event = field(default_factory=asyncio.Event)

    def __call__(self, level: str, message: str) -> None:
        self.lines.append((level, message))
        self.came.set()

    async def next(self) -> tuple[str, str]:
        async with asyncio.timeout(10):
            await self.came.wait()
        self.came.clear()
        return self.lines[-1]


@pytest.fixture
def made(tmp_path: Path) -> Certificates:
    return make_certificates(tmp_path / "live", ["localhost"])


def serial(path: Path) -> int:
    return x509.load_pem_x509_certificate(path.read_bytes()).serial_number


def renew(made: Certificates) -> None:
    made.key.unlink()
    assert make_certificates(made.ca.parent, ["localhost"]).made_certificate


@asynccontextmanager
async def echo_server(context: ssl.SSLContext) -> AsyncIterator[int]:
    """A real TLS server that sends back each line; its port."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while line := await reader.readline():
                writer.write(line)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@dataclass
class Client:
    """One connection that trusts the authority in `ca`."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def connect(cls, port: int, ca: Path) -> "Client":
        trust = ssl.create_default_context(cafile=str(ca))
        return cls(*await asyncio.open_connection("127.0.0.1", port, ssl=trust, server_hostname="localhost"))

    @property
    def serial(self) -> int:
        der = self.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return x509.load_der_x509_certificate(der).serial_number

    async def works(self) -> bool:
        self.writer.write(b"ping\n")
        return await self.reader.readline() == b"ping\n"

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


async def test_new_connections_get_the_new_certificate_and_open_ones_go_on(made: Certificates) -> None:
    reports = Reports()
    reloading = ReloadingContext(made.certificate, made.key, report=reports, every=0.02)
    watching = asyncio.create_task(reloading.watch())
    async with echo_server(reloading.context) as port:
        old, before = serial(made.certificate), await Client.connect(port, made.ca)
        assert before.serial == old
        renew(made)
        while (await reports.next())[0] != "info":  # the watch may meet the new key beside the old certificate
            pass
        after = await Client.connect(port, made.ca)
        assert after.serial == serial(made.certificate) != old
        assert await before.works()
        assert await after.works()
        await before.close()
        await after.close()
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_broken_pair_leaves_the_old_one_and_is_reported_once(made: Certificates, damage: str) -> None:
    reports = Reports()
    reloading = ReloadingContext(made.certificate, made.key, report=reports)
    old, good = serial(made.certificate), made.key.read_bytes()
    break_pair(made, damage)
    for _ in range(3):
        assert not await reloading.reload()
    assert [level for level, _ in reports.lines] == ["error"]
    assert "\n" not in reports.lines[0][1]
    assert "PRIVATE" not in reports.lines[0][1]
    async with echo_server(reloading.context) as port:
        client = await Client.connect(port, made.ca)
        assert client.serial == old
        assert await client.works()
        await client.close()
        made.key.write_bytes(good)
        make_certificates(made.ca.parent, ["localhost", "new"])
        assert await reloading.reload()
        client = await Client.connect(port, made.ca)
        assert client.serial != old
        await client.close()


def break_pair(made: Certificates, damage: str) -> None:
    if damage == "other key":
        shutil.copy(made.ca_key, made.key)
    elif damage == "other certificate":
        key = made.key.read_bytes()
        renew(made)
        made.key.write_bytes(key)
    elif damage == "truncated":
        os.truncate(made.key, 60)
    elif damage == "not pem":
        made.key.write_text("nonsense")
    elif damage == "missing":
        made.key.unlink()
    else:
        made.key.write_bytes(encrypted(made.key))


def encrypted(path: Path) -> bytes:
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    protection = serialization.BestAvailableEncryption(b"canary")
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)


async def test_a_pair_that_was_broken_and_is_mended_to_the_old_one_is_reported_again_when_it_breaks(
    made: Certificates,
) -> None:
    reports = Reports()
    reloading = ReloadingContext(made.certificate, made.key, report=reports)
    good = made.key.read_bytes()
    for _ in range(2):
        made.key.write_text("nonsense")
        assert not await reloading.reload()
        made.key.write_bytes(good)
        assert not await reloading.reload()
    assert [level for level, _ in reports.lines] == ["error", "error"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_broken_pair_stops_the_start_in_one_line(made: Certificates, damage: str) -> None:
    break_pair(made, damage)
    with pytest.raises(StartError, match="cannot be used") as error:
        ReloadingContext(made.certificate, made.key)
    assert "\n" not in str(error.value)


def test_a_certificate_that_ends_soon_is_reported(tmp_path: Path) -> None:
    made = make_certificates(tmp_path, ["localhost"], days=3)
    reports: list[tuple[str, str]] = []
    ReloadingContext(made.certificate, made.key, report=lambda *line: reports.append(line))
    assert [level for level, _ in reports] == ["warning"]


async def test_old_versions_and_unauthenticated_ciphers_are_refused(made: Certificates) -> None:
    context = ReloadingContext(made.certificate, made.key).context
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert all(cipher["aead"] for cipher in context.get_ciphers())
    async with echo_server(context) as port:
        old = ssl.create_default_context(cafile=str(made.ca))
        old.set_ciphers("ECDHE-ECDSA-AES128-SHA256")  # no authenticated encryption
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("127.0.0.1", port, ssl=old, server_hostname="localhost")


async def test_no_key_is_left_in_a_temporary_file(
    made: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    open_files = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for _ in range(3):
        ReloadingContext(made.certificate, made.key)
    monkeypatch.delattr(os, "memfd_create", raising=False)
    ReloadingContext(made.certificate, made.key)
    assert list(temporary.iterdir()) == []
    assert open_files == 0 or len(os.listdir("/proc/self/fd")) <= open_files
