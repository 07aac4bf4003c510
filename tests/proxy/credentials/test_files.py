"""Files of logins as docker, podman and skopeo write them, read again when they change."""

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from app.errors import StartError
from app.proxy.credentials import Credentials, Login, open_credentials
from app.proxy.errors import Denied
from app.proxy.settings import CredentialsSettings
from tests.services.clients import Client, find_program

USER, PASSWORD = "me", "pass:word é"


@pytest.fixture
async def registry() -> AsyncIterator[str]:
    """`host:port` of something that takes the logins of USER with either password, as a registry does."""

    async def answer(request: web.Request) -> web.Response:
        scheme, _, text = request.headers.get("Authorization", "").partition(" ")
        user, _, password = base64.b64decode(text).decode().partition(":") if scheme == "Basic" else ("", "", "")
        if user == USER and password in (PASSWORD, "changed"):
            return web.json_response({})
        challenge = {"WWW-Authenticate": 'Basic realm="test"', "Docker-Distribution-Api-Version": "registry/2.0"}
        return web.json_response({"errors": [{"code": "UNAUTHORIZED"}]}, status=401, headers=challenge)

    app = web.Application()
    app.router.add_get("/v2/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


def client(request: pytest.FixtureRequest, name: str, home: Path) -> Client:
    program = find_program(name)
    if program is None:
        if request.config.getoption("--require-clients"):
            pytest.fail(f"{name} is not installed")
        pytest.skip(f"{name} is not installed")
    environment = {"DOCKER_HOST": "tcp://127.0.0.1:1"}  # without a daemon docker asks by itself
    return Client(program, home, environment=environment)


def login(program: Client, registry: str, password: str) -> Path:
    """Logs in and returns the file that the program wrote."""
    config, options = program.home / "auth.json", ["--tls-verify=false"]
    if program.program.name == "docker":
        config, options = program.home / "docker/config.json", []
    program.run("login", *options, "--username", USER, "--password-stdin", registry, stdin=password)
    return config


def opened(path: Path) -> Credentials:
    return open_credentials(CredentialsSettings(config=path))


@pytest.mark.clients
@pytest.mark.parametrize("name", ["docker", "podman", "skopeo"])
async def test_the_login_of_a_real_client_is_found(
    request: pytest.FixtureRequest, registry: str, tmp_path: Path, name: str
) -> None:
    program = client(request, name, tmp_path / "home")
    path = await asyncio.to_thread(login, program, registry, PASSWORD)
    credentials = opened(path)
    assert await credentials.login(registry) == Login(USER, PASSWORD)
    assert await credentials.login("127.0.0.1:1") is None
    await asyncio.to_thread(login, program, registry, "changed")
    assert await credentials.login(registry, renew=True) == Login(USER, "changed")
    assert credentials.identity == f"config:{path.name}"


async def test_a_file_that_is_missing_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"config\.json cannot be read"):
        opened(tmp_path / "config.json")


async def test_a_file_that_is_no_json_stops_the_start(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text("{hush")
    with pytest.raises(StartError, match="is not JSON") as raised:
        opened(path)
    assert "hush" not in str(raised.value)


async def test_a_file_that_breaks_later_is_denied_only_when_its_login_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"auths": {"registry.example": {"username": "me", "password": "hush"}}}')
    credentials = opened(path)
    path.write_text('{"auths": {"registry.exa')
    assert await credentials.login("registry.example") == Login("me", "hush")
    with pytest.raises(Denied, match=r"registry.example: the file of logins config\.json is not JSON") as raised:
        await credentials.login("registry.example", renew=True)
    assert "hush" not in str(raised.value)


async def test_an_entry_that_is_broken_is_denied(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"auths": {"registry.example": {"auth": "aHVzaA=="}}}')
    with pytest.raises(Denied, match=r"registry.example: its entry in config\.json holds no user and password"):
        await opened(path).login("registry.example")
