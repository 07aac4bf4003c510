"""Where a containerd looks, by its config.toml; that the real one does so is proved in tests/k8s/test_containerd.py."""

from pathlib import Path

import pytest

from app.nodes import detection
from app.nodes.lookup import CERTS, Looking, is_for_docker_alone, look
from app.nodes.root import Root
from tests.nodes.roots import NEW_CONTAINERD, OLD_CONTAINERD, SET_CONTAINERD, make_root

LIST = f"{CERTS}:/etc/docker/certs.d"
OLD_LIST = SET_CONTAINERD.replace(CERTS, LIST)
IMAGES = 'plugins."io.containerd.cri.v1.images"'
NEW_LIST = f'version = 3\n[{IMAGES}.registry]\nconfig_path = "{LIST}"\n'
SETS = f'{IMAGES}.registry]\n  config_path = "{CERTS}"\n'


@pytest.mark.parametrize("release", [None, (1, 6), (2, 0), (2, 4)])
@pytest.mark.parametrize("config", [SET_CONTAINERD, f"version = 3\n[{SETS}", f"version = 4\n[{SETS}"])
def test_every_containerd_looks_into_the_one_folder_that_it_was_told(
    config: str, release: tuple[int, int] | None
) -> None:
    assert look(config, release=release) == Looking()


@pytest.mark.parametrize("release", [None, (1, 6), (2, 0), (2, 4)])
@pytest.mark.parametrize(
    "config", [None, OLD_CONTAINERD, NEW_CONTAINERD, f'version = 4\n[{IMAGES}.registry]\nconfig_path = ""\n']
)
def test_no_containerd_looks_anywhere_unless_it_was_told(config: str | None, release: tuple[int, int] | None) -> None:
    looking = look(config, release=release)
    assert looking.missing is not None
    assert look(looking.missing, release=release) == Looking()
    assert "looks into no certs.d" in looking.notes[0]


@pytest.mark.parametrize("path", ['"certs.d"', '["/certs.d"]', "{ a = 1 }", "3", '"/"'])
def test_a_folder_that_is_no_absolute_path_is_not_looked_into(path: str) -> None:
    looking = look(f"version = 3\n[{IMAGES}.registry]\nconfig_path = {path}\n")
    assert (looking.folder, looking.missing is not None) == (CERTS, True)
    assert "no absolute config_path" in looking.notes[0]


@pytest.mark.parametrize("path", ["", "conf.d/*"])
def test_an_import_that_is_no_file_is_passed_over(path: str, tmp_path: Path) -> None:
    node = make_root(tmp_path, {"etc/containerd/config.toml": f'version = 3\nimports = ["{path}"]\n[{SETS}'})
    (node / "etc/containerd/conf.d/folder").mkdir(parents=True)
    assert detection.look(Root(node)) == Looking()


@pytest.mark.parametrize(
    ("config", "release", "missing", "noted"),
    [
        (OLD_LIST, (1, 6), False, False),
        (OLD_LIST, (2, 0), False, False),
        (OLD_LIST, (2, 1), True, True),
        (OLD_LIST, None, False, True),
        (NEW_LIST, (2, 0), False, False),
        (NEW_LIST, (2, 4), True, True),
        (NEW_LIST, None, True, True),
    ],
)
def test_a_list_of_folders_is_one_path_to_containerd_since_2_1(
    config: str, release: tuple[int, int] | None, missing: bool, noted: bool
) -> None:
    looking = look(config, release=release)
    assert (looking.folder, looking.missing is not None, bool(looking.notes)) == (CERTS, missing, noted)
    assert look(looking.missing or SET_CONTAINERD, release=release) == Looking()


@pytest.mark.parametrize(
    "local",
    ["use_local_image_pull = true", "discard_unpacked_layers = true", "max_concurrent_downloads = 10"],
)
def test_a_containerd_that_pulls_without_the_transfer_service_takes_a_list_apart(local: str) -> None:
    assert look(f"version = 3\n[{IMAGES}]\n{local}\n[{IMAGES}.registry]\nconfig_path = '{LIST}'\n") == Looking()
    assert look(f"version = 4\n[{IMAGES}]\n{local}\n") == Looking()
    older = f'{OLD_LIST}[plugins."io.containerd.grpc.v1.cri".containerd]\ndiscard_unpacked_layers = true\n'
    assert look(older, release=(2, 4)) == Looking()


def test_an_import_is_read_by_its_own_version_and_says_nothing_with_an_empty_path() -> None:
    assert look(OLD_CONTAINERD, [f"version = 3\n[{SETS}"], (2, 4)) == Looking()
    assert (
        look(
            f"version = 3\n[{SETS}", ['version = 2\n[plugins."io.containerd.grpc.v1.cri".registry]\nconfig_path = ""\n']
        )
        == Looking()
    )


@pytest.mark.parametrize(
    ("config", "alone"),
    [
        ('disabled_plugins = ["cri"]\n', True),
        ('version = 3\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n', True),
        ("version = 3\ndisabled_plugins = []\n", False),
        ("disabled_plugins = [", False),
        (None, False),
    ],
)
def test_a_containerd_without_its_cri_plugin_is_for_docker_alone(config: str | None, alone: bool) -> None:
    assert is_for_docker_alone(config) is alone
