"""Only keys reach a store."""

from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from storage.filesystem import FilesystemDriver
from storage.keys import check_key, check_prefix, check_scratch
from storage.memory import MemoryDriver

BAD = [
    "", "/", "/a", "a/", "a//b", ".", "..", "a/.", "a/..", "../a", "a/../b", ".hidden", "a/.hidden", "a b", " a", "a\n",
    "a\x00b", "a\x7f", "ä", "a" * 256, "a/" * 512 + "a",
]  # fmt: skip


@pytest.mark.parametrize("key", BAD)
def test_what_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="is not a key"):
        check_key(key)


@pytest.mark.parametrize("key", ["a", "a/b", "a" * 255, "a..b", "a%2e%2e/b", "~", "a\\b", "/".join(["a"] * 512)])
def test_a_key_is_given_back(key: str) -> None:
    assert check_key(key) == key


@given(st.text(max_size=60) | st.text("a./ %!\\~\n", max_size=12))
def test_no_key_leaves_its_folder(key: str) -> None:
    try:
        check_key(key)
    except ValueError:
        return
    path = Path("/root/of/store") / key
    assert path.is_relative_to("/root/of/store")
    assert ".." not in path.parts
    assert str(path) == f"/root/of/store/{key}"


@pytest.mark.parametrize("prefix", ["/", "../", "a/../", "a//", ".hidden/", "a b"])
def test_what_begins_no_key_is_no_prefix(prefix: str) -> None:
    with pytest.raises(ValueError, match="prefix"):
        check_prefix(prefix)


@pytest.mark.parametrize("scratch", ["", "a", "/", "../", "a/../", "a/b"])
def test_scratch_is_whole_segments(scratch: str) -> None:
    with pytest.raises(ValueError, match="slash"):
        check_scratch(scratch)


@pytest.mark.parametrize("kind", ["memory", "filesystem"])
async def test_no_action_of_a_driver_takes_what_is_no_key(kind: str, tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"secret")
    driver = MemoryDriver() if kind == "memory" else FilesystemDriver(tmp_path / "store")
    await driver.start()
    await driver.put("good", b"x")
    for key in ("../outside", ".tmp", "good/../../outside", "/etc/passwd"):
        for action in (driver.get(key), driver.stat(key), driver.put(key, b""), driver.delete(key)):
            with pytest.raises(ValueError, match="is not a key"):
                await action
        for action in (driver.copy("good", key), driver.copy(key, "good"), driver.delete_many([key])):
            with pytest.raises(ValueError, match="is not a key"):
                await action
        with pytest.raises(ValueError, match="is not a key"):
            driver.create(key, "uploads/x/")
        with pytest.raises(ValueError, match="slash"):
            driver.create("good", key)
        with pytest.raises(ValueError, match="is not a key"):
            async with driver.open(key):
                pass
    with pytest.raises(ValueError, match="slash"):
        await driver.discard("../")
    assert (tmp_path / "outside").read_bytes() == b"secret"
    await driver.close()
