import ssl
from pathlib import Path

import yaml

from tests.cli.conftest import Edge


def test_certificates_are_made_and_the_configuration_to_paste_is_valid(edge: Edge, tmp_path: Path) -> None:
    ended = edge("setup", "certs", "--name", "registry.lan", "--name", "127.0.0.1", "--folder", "certs")
    assert ended.status == 0
    files = yaml.safe_load(ended.stdout)["http"]["tls"]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files["certificate"], files["key"])
    (tmp_path / "c.yml").write_text(ended.stdout)
    shown = edge("config", "show", "--config", "c.yml")
    assert shown.status == 0
    assert files["certificate"] in shown.stdout


def test_a_second_run_keeps_what_is_there(edge: Edge, tmp_path: Path) -> None:
    edge("setup", "certs", "--name", "registry.lan")
    before = {path.name: path.read_bytes() for path in (tmp_path / "registry-certs").iterdir()}
    again = edge("setup", "certs", "--name", "registry.lan")
    assert "kept the authority" in again.stderr
    assert {path.name: path.read_bytes() for path in (tmp_path / "registry-certs").iterdir()} == before


def test_a_bad_name_is_one_line(edge: Edge) -> None:
    ended = edge("setup", "certs", "--name", "not a name")
    assert ended.status == 2
    assert "not a name" in ended.complaint
