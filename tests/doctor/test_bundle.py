import stat
import tarfile
from pathlib import Path

import pytest

from app.doctor.bundle import versions, write_bundle
from app.errors import StartError

SECRETS = ["correct-horse", 'with"quote', "with space&sign", "hush\u00e9"]


def unpacked(path: Path) -> str:
    with tarfile.open(path) as archive:
        files = [archive.extractfile(member) for member in archive.getmembers()]
        return "\n".join(file.read().decode() for file in files if file is not None)


def test_no_secret_gets_into_a_bundle_however_it_is_spelled(tmp_path: Path) -> None:
    path = tmp_path / "b.tar.gz"
    lines = [
        *SECRETS,
        '{"note": "with\\"quote"}',
        "https://me:with%20space%26sign@registry.example/",
        "Authorization: Basic-dXNlcjpwYXNz",
        'password = "unknown-one"',
    ]
    write_bundle(path, {"a.txt": "\n".join(lines), "b.txt": "http.port = 5045\nstorage.s3.secret_key = null"}, SECRETS)
    text = unpacked(path)
    for word in ("horse", "quote", "sign", "hush", "unknown-one", "dXNlcjpwYXNz"):
        assert word not in text
    assert "http.port = 5045" in text
    assert "storage.s3.secret_key = null" in text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_bundle_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="cannot be written"):
        write_bundle(tmp_path / "none" / "b.tar.gz", {}, [])


def test_versions_say_what_runs() -> None:
    text = versions({"docker": "docker 27.5"})
    assert "python 3." in text
    assert "aiohttp " in text
    assert text.endswith("docker 27.5\n")
