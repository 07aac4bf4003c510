import asyncio
import re
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr

from app.doctor.inside import open_inside
from app.doctor.report import Check, Verdict
from app.doctor.round_trip import examine_round_trip
from app.doctor.store import examine_redirect, open_bucket, open_folder
from app.tls.authority import make_certificates
from storage import Driver
from storage.filesystem import FilesystemDriver
from storage.s3 import S3Driver
from storage.settings import S3Settings
from tests.doctor.verdicts import bad, the_one
from tests.proxy.served import serve
from tests.services.minio import MinioServer, free_port

SECRET = "not-the-secret-key"


def bucket_settings(minio: MinioServer, bucket: str, **changed: Any) -> S3Settings:
    given = {"endpoint": minio.endpoint, "access_key": minio.access_key, "secret_key": minio.secret_key}
    return S3Settings.model_validate({**given, "bucket": bucket, **changed})


async def looked_at(settings: S3Settings) -> list[Check]:
    async with open_bucket(S3Driver(settings), settings) as opened:
        return list(opened.checks)


async def every_key(driver: Driver) -> set[str]:
    return {entry.key for entry in (await driver.list("")).entries}


@pytest.mark.minio
async def test_a_sound_bucket_is_sound_and_a_round_trip_leaves_nothing_in_it(minio: MinioServer, bucket: str) -> None:
    settings = bucket_settings(minio, bucket)
    driver = S3Driver(settings)
    async with open_bucket(driver, settings) as opened:
        assert bad(opened.checks) == []
        assert {
            "reach",
            "credentials",
            "bucket",
            "listing after write",
            "conditional put",
            "stale signatures",
            "clock",
        } == {check.name for check in opened.checks}
        assert opened.capabilities is not None
        async with open_inside(driver, opened.capabilities) as door:
            checks = await examine_round_trip(door, door.corner)
        assert bad(checks) == []
        assert [check.name for check in checks] == ["push", "pull", "delete"]
        assert await every_key(driver) == set()


@pytest.mark.minio
async def test_a_wrong_secret_key_is_named_by_its_settings_and_not_shown(minio: MinioServer, bucket: str) -> None:
    settings = bucket_settings(minio, bucket, secret_key=SecretStr(SECRET))
    check = the_one(await looked_at(settings))
    assert check.name == "credentials"
    assert "SignatureDoesNotMatch" in check.found
    assert check.fix is not None
    assert "storage.s3.secret_key" in check.fix
    assert SECRET not in repr(check)


@pytest.mark.minio
async def test_a_missing_bucket_is_named_and_not_made(minio: MinioServer) -> None:
    settings = bucket_settings(minio, "nowhere")
    check = the_one(await looked_at(settings))
    assert check.found == f"there is no bucket nowhere at {minio.endpoint}"
    assert check.fix == "edge-registry setup bucket --bucket nowhere"
    assert the_one(await looked_at(settings)) == check


@pytest.mark.minio
async def test_a_clock_a_quarter_of_an_hour_off_is_told_from_wrong_keys(
    minio: MinioServer, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = SimpleNamespace(time=lambda: time.time() - 1000, strftime=time.strftime, gmtime=time.gmtime)
    monkeypatch.setattr("storage.sigv4.time", late)
    check = the_one(await looked_at(bucket_settings(minio, bucket)))
    assert (check.name, check.fix) == ("clock", "timedatectl set-ntp true")


@pytest.mark.minio
async def test_a_store_whose_clock_is_minutes_off_is_a_warning(
    minio: MinioServer, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    behind = SimpleNamespace(time=lambda: time.time() - 300)
    monkeypatch.setattr("storage.s3.time", behind)
    found = bad(await looked_at(bucket_settings(minio, bucket)))
    clock = next(check for check in found if check.name == "clock")
    assert clock.verdict is Verdict.WARNING
    assert clock.fix == "timedatectl set-ntp true"
    assert re.search(r"differs by -(29\d|30\d) s", clock.found)


async def test_a_store_that_is_not_there_is_named_by_its_address() -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    settings = S3Settings(endpoint=endpoint, access_key="a", secret_key=SecretStr(SECRET))
    check = the_one(await looked_at(settings))
    assert check.name == "reach"
    assert endpoint in check.found
    assert check.fix is not None
    assert "storage.s3.endpoint" in check.fix


async def test_a_store_with_a_certificate_of_an_unknown_authority_asks_for_it(tmp_path: Path) -> None:
    made = make_certificates(tmp_path, ["127.0.0.1"])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(made.certificate, made.key)
    async with serve(page, context) as served:
        settings = S3Settings(endpoint=served.base, access_key="a", secret_key=SecretStr(SECRET))
        check = the_one(await looked_at(settings))
        assert check.fix == "set storage.s3.ca to the PEM file of the authority that signed it"
        trusted = the_one(await looked_at(settings.model_copy(update={"ca": made.ca})))
    assert "not to its console" in str(trusted.fix)


async def page(_request: web.Request) -> web.StreamResponse:
    return web.Response(text="<html>", content_type="text/html")


@pytest.fixture
async def console() -> AsyncIterator[str]:
    """The URL of a web page where a store was meant, as MinIO's console is one."""
    async with serve(page) as served:
        yield served.base


@pytest.mark.minio
async def test_redirects_that_lead_nowhere_from_here_are_found(minio: MinioServer, bucket: str, console: str) -> None:
    for public, sound in ((None, True), (f"http://127.0.0.1:{free_port()}", False), (console, False)):
        settings = bucket_settings(minio, bucket, redirect=True, public_endpoint=public)
        driver = S3Driver(settings)
        async with open_bucket(driver, settings):
            check = await examine_redirect(driver, settings)
            assert (bad([check]) == []) is sound, check
            assert await every_key(driver) == set()
            if not sound:
                assert check.fix is not None
                assert "storage.s3.public_endpoint" in check.fix


async def test_a_folder_that_is_not_there_yet_is_a_warning_and_stays_so(tmp_path: Path) -> None:
    root = tmp_path / "data"
    async with open_folder(FilesystemDriver(root), root) as opened:
        assert opened.driver is None
        assert "is not there yet" in the_one(opened.checks, Verdict.WARNING).found
    assert not root.exists()


async def test_a_file_in_the_place_of_the_folder_is_found(tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.write_text("")
    async with open_folder(FilesystemDriver(root), root) as opened:
        assert the_one(opened.checks).fix == "set storage.filesystem.root to a folder"


async def test_a_round_trip_in_a_folder_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("untouched")
    driver = FilesystemDriver(tmp_path)
    async with open_folder(driver, tmp_path) as opened:
        assert opened.capabilities is not None
        async with open_inside(driver, opened.capabilities) as door:
            assert bad(await examine_round_trip(door, door.corner)) == []
    left = await asyncio.to_thread(lambda: sorted(path.name for path in tmp_path.rglob("*") if path.is_file()))
    assert left == [".lock", "other"]
