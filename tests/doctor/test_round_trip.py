from collections.abc import Iterator
from pathlib import Path

import pytest

from app.doctor.over_http import Login, open_http
from app.doctor.report import Check
from app.doctor.round_trip import examine_round_trip
from storage.filesystem import FilesystemDriver
from tests.doctor.verdicts import bad, the_one
from tests.services.front import Fault, Front
from tests.services.minio import free_port
from tests.services.registry import Credentials, RegistryServer, filesystem_store

USER = Credentials("me", "correct-horse-battery")
LOGIN = Login(USER.name, USER.password)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    folder = tmp_path_factory.mktemp("registry")
    with RegistryServer(folder, filesystem_store(folder / "data"), users=USER, tls=True) as server:
        yield server


def files(server: RegistryServer) -> set[str]:
    root = server.folder / "data"
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


async def there_and_back(
    server: RegistryServer, login: Login | None = LOGIN, *, url: str | None = None, shared: bool = True
) -> list[Check]:
    assert server.ca is not None
    store = FilesystemDriver(server.folder / "data")
    await store.start()
    try:
        async with open_http(url or server.url, login, server.ca.read_text()) as door:
            return await examine_round_trip(door, store if shared else None)
    finally:
        await store.close()


async def test_an_image_goes_there_and_back_and_leaves_no_key_behind(server: RegistryServer) -> None:
    before = files(server)
    checks = await there_and_back(server)
    assert bad(checks) == []
    assert "without a trace" in checks[-1].found
    assert files(server) == before


async def test_without_the_store_at_hand_it_says_what_stays(server: RegistryServer) -> None:
    checks = await there_and_back(server, shared=False)
    assert bad(checks) == []
    assert checks[-1].found.startswith("doctor/round-trip is empty; its name, and ")
    assert [path for path in files(server) if "/_manifests/" in path or "/_blobs/" in path] == []


async def test_a_wrong_password_is_one_failure(server: RegistryServer) -> None:
    check = the_one(await there_and_back(server, Login("me", "another")))
    assert "refuses the password of me" in check.found
    assert "another" not in repr(check)


async def test_a_missing_login_is_asked_for(server: RegistryServer) -> None:
    assert the_one(await there_and_back(server, None)).fix == "edge-registry doctor --user NAME --password-stdin"


async def test_a_certificate_that_is_not_trusted_from_here_is_named(server: RegistryServer) -> None:
    async with open_http(server.url, LOGIN, None) as door:
        check = the_one(await examine_round_trip(door, None))
    assert "not trusted" in check.found
    assert check.fix is not None
    assert check.fix.startswith("edge-registry doctor --ca")


async def test_a_server_that_is_not_there_is_named(server: RegistryServer) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    assert "cannot be reached" in the_one(await there_and_back(server, url=url)).found


async def test_bytes_that_change_on_the_way_are_a_failure_and_everything_is_removed(server: RegistryServer) -> None:
    before = files(server)
    with Front(server.url, target_ca=server.ca, target_login=USER) as front:
        front.on("/v2/doctor/*/blobs/sha256:*", Fault(corrupt=40), method="GET")
        checks = await there_and_back(server, url=front.url)
    assert the_one(checks).found.endswith("other bytes came back than were pushed")
    assert files(server) == before


async def test_a_read_only_registry_says_that_it_takes_no_pushes(tmp_path: Path) -> None:
    settings = {"EDGE_REGISTRY_REGISTRY__READ_ONLY": "true"}
    with RegistryServer(tmp_path, filesystem_store(tmp_path / "data"), settings=settings) as server:
        async with open_http(server.url, None, None) as door:
            check = the_one(await examine_round_trip(door, None))
    assert check.fix == "edge-registry doctor --url URL, with a listener that is not read_only"


async def test_a_registry_that_deletes_nothing_is_cleared_through_its_store(tmp_path: Path) -> None:
    settings = {"EDGE_REGISTRY_REGISTRY__DELETE": "false"}
    with RegistryServer(tmp_path, filesystem_store(tmp_path / "data"), settings=settings) as server:
        before, store = files(server), FilesystemDriver(tmp_path / "data")
        await store.start()
        async with open_http(server.url, None, None) as door:
            assert bad(await examine_round_trip(door, store)) == []
        await store.close()
        assert files(server) - before <= {path for path in files(server) if path.startswith("upkeep/keys/")}
