import socket
from pathlib import Path

from app.doctor.port import Place, examine_port
from app.doctor.report import Verdict
from tests.doctor.verdicts import the_one
from tests.services.minio import free_port
from tests.services.registry import RegistryServer, filesystem_store


async def test_a_free_port_is_free_and_stays_so() -> None:
    port = free_port()
    check, url = await examine_port(Place("http", "127.0.0.1", port, tls=False))
    assert (check.verdict, url) == (Verdict.OK, None)
    with socket.create_server(("127.0.0.1", port)):
        pass


async def test_a_port_that_somebody_else_has_taken_is_named_with_its_setting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        check, url = await examine_port(Place("listeners.1", "127.0.0.1", port, tls=False))
    assert url is None
    assert the_one([check]).found == "taken by a program that is no edge registry"
    assert check.fix is not None
    assert "listeners.1.port" in check.fix


async def test_a_port_of_an_edge_registry_is_recognised_with_and_without_tls(tmp_path: Path) -> None:
    for tls in (False, True):
        with RegistryServer(tmp_path / str(tls), filesystem_store(tmp_path / "data"), tls=tls) as server:
            check, url = await examine_port(Place("http", "0.0.0.0", server.port, tls=tls))
            assert check.found.startswith("served by an edge registry")
            assert url == server.url


async def test_an_address_of_another_machine_cannot_be_listened_at() -> None:
    check, _ = await examine_port(Place("http", "192.0.2.1", 5045, tls=False))
    assert the_one([check]).fix == "set http.host to an address of this machine"
