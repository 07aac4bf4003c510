import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from app.settings import Settings
from tests.services.app import Running, running
from tests.services.client import digest_of, noise


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of four megabytes."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs here: {mounted.stderr}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
async def service(small_disk: Path) -> AsyncIterator[Running]:
    store = {"driver": "filesystem", "filesystem": {"root": small_disk / "store"}}
    async with running(Settings.model_validate({"storage": store})) as opened:
        yield opened


async def test_a_full_disk_is_507_and_pulls_go_on(service: Running) -> None:
    api = service.client
    image = await api.push_image("a", "t", noise(500_000))
    data = noise(6_000_000)
    location = await api.begin("a")
    for answer in (
        await api.finish(location, digest_of(data), data),
        await api.patch(location, data),
        await api.patch(location, data, 0),
        await api.ask("POST", f"/v2/a/blobs/uploads/?digest={digest_of(data)}", body=data),
    ):
        assert answer.expect(507).codes == ["UNAVAILABLE"]
        assert (await api.get("/v2/a/manifests/t")).expect(200).body == image.data
        assert (await api.get(f"/v2/a/blobs/{digest_of(noise(500_000))}")).expect(200).body == noise(500_000)
        (await api.head(f"/v2/a/blobs/{digest_of(data)}")).expect(404)
    await api.push_image("a", "after", noise(400_000, "fits"))
    (await api.delete(f"/v2/a/manifests/{image.digest}")).expect(202)
