"""`edge-registry gc`, run as people run it, on a folder."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.oci.digests import digest_of
from app.oci.names import Name
from app.registry import keys
from app.registry.keys import Copy, Entry
from tests.registry.conftest import manifest_of

HERE = Name("team/app")
LAYER, GONE = b"layer", b"nobody needs this"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A folder with an image and a layer without one, both old enough."""
    root = tmp_path / "store"
    files: dict[str, bytes] = {}
    for number, data in enumerate((LAYER, GONE)):
        copy, digest = Copy(f"{number:032x}", len(data)), digest_of(data)
        files |= {keys.data(copy.uuid): data, keys.link(HERE, digest, copy): b"", keys.holder(digest, copy, HERE): b""}
    manifest = manifest_of(digest_of(LAYER))
    files[keys.manifest(HERE, Entry(digest_of(manifest), "0" * 32, "application/x", len(manifest)))] = manifest
    long_ago = time.time() - 60 * 86_400
    for key, data in files.items():
        path = root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        os.utime(path, (long_ago, long_ago))
    return root


def gc(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(root.parent),
        "EDGE_REGISTRY_STORAGE__DRIVER": "filesystem",
        "EDGE_REGISTRY_STORAGE__FILESYSTEM__ROOT": str(root),
    }
    command = [sys.executable, "-m", "app", "gc", *options]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)


def data_of(root: Path) -> list[bytes]:
    return sorted(path.read_bytes() for path in (root / "data").iterdir())


def test_a_dry_run_says_what_would_go_and_the_real_one_frees_it(store: Path) -> None:
    would = gc(store, "--dry-run")
    assert (would.returncode, would.stderr) == (0, "")
    assert "2 blobs, 22 B" in would.stdout
    assert "would go: 1 copies, 17 B" in would.stdout
    assert data_of(store) == [LAYER, GONE]
    done = gc(store)
    assert done.returncode == 0
    assert "gone: 1 copies, 17 B" in done.stdout
    assert "17 B freed" in done.stdout
    assert data_of(store) == [LAYER]


def test_json_is_one_object_and_the_last_report_is_kept(store: Path) -> None:
    nothing = gc(store, "--last")
    assert nothing.returncode == 2
    assert "no report" in nothing.stderr
    done = gc(store, "--json")
    document = json.loads(done.stdout)
    assert (document["state"], document["freed"]) == ("done", 17)
    assert document["items"] == [
        {
            "what": digest_of(GONE),
            "why": "no manifest of a repository that links it needs it",
            "bytes": 17,
        }
    ]
    assert json.loads(gc(store, "--last", "--json").stdout) == document
    assert "gone: 1 copies" in gc(store, "--last").stdout


def test_a_manifest_that_cannot_be_read_is_named_and_the_exit_status_is_1(store: Path) -> None:
    digest = digest_of(b"what it was")
    path = store / keys.manifest(HERE, Entry(digest, "1" * 32, "application/x", 3))
    path.parent.mkdir(parents=True)
    path.write_bytes(b"rot")
    stopped = gc(store)
    assert stopped.returncode == 1
    assert f"cannot be read: {HERE}@{digest}" in stopped.stdout
    assert "nothing is deleted" in stopped.stderr
    assert data_of(store) == [LAYER, GONE]
    assert gc(store, "--last").returncode == 1


def test_wrong_options_and_a_store_in_memory_are_refused(store: Path) -> None:
    assert gc(store, "--max-share", "1.5").returncode == 2
    refused = subprocess.run(
        [sys.executable, "-m", "app", "gc"],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "EDGE_REGISTRY_STORAGE__DRIVER": "memory"},
        timeout=120,
        check=False,
    )
    assert refused.returncode == 2
    assert "memory" in refused.stderr
