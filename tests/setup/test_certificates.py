"""The part that makes certificates."""

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from app.tls.authority import make_certificates
from tests.setup.running import Setup


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def names(setup: Setup) -> list[str]:
    leaf = certificate(setup.state / "certs/server.crt")
    found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(one) for kind in (x509.DNSName, x509.IPAddress) for one in found.get_values_for_type(kind)]


def test_it_is_for_the_addresses_and_names_of_the_registry(alone: Setup) -> None:
    alone.succeed("certificates", "--address", "192.0.2.7", "--names", "registry.example.org 192.0.2.8")
    assert {
        "192.0.2.7",
        "192.0.2.8",
        "127.0.0.1",
        "localhost",
        "registry.example.org",
        "container-registry.local",
    } < set(names(alone))
    assert "edge-registry.edge-storage.svc.cluster.local" in names(alone)
    assert (alone.state / "certs/server.key").stat().st_mode & 0o777 == 0o600
    assert (alone.state / "certs/ca.key").stat().st_mode & 0o777 == 0o600


def test_they_are_kept_while_they_are_valid(alone: Setup) -> None:
    alone.succeed("certificates")
    before = {path.name: path.read_bytes() for path in (alone.state / "certs").iterdir()}
    assert sorted(before) == ["ca.crt", "ca.key", "server.crt", "server.key"]
    alone.succeed("certificates")
    assert {path.name: path.read_bytes() for path in (alone.state / "certs").iterdir()} == before
    assert alone.succeed("certificates", "--dry-run").would == []


def test_one_that_ends_within_30_days_is_renewed_by_the_same_authority(alone: Setup) -> None:
    alone.succeed("certificates")
    certs = alone.state / "certs"
    found = names(alone)
    for path in (certs / "server.crt", certs / "server.key"):
        path.unlink()
    make_certificates(certs, found, days=29)
    authority = (certs / "ca.crt").read_bytes()
    would = alone.succeed("certificates", "--dry-run").would
    assert f"change {certs}/server.crt" in would
    assert f"change {certs}/ca.crt" not in would
    alone.succeed("certificates")
    assert certificate(certs / "server.crt").not_valid_after_utc > datetime.now(UTC) + timedelta(days=100)
    assert (certs / "ca.crt").read_bytes() == authority


def test_another_name_makes_another_certificate(alone: Setup) -> None:
    alone.succeed("certificates")
    alone.succeed("certificates", "--names", "2001:db8::7")
    assert str(ipaddress.ip_address("2001:db8::7")) in names(alone)


def test_a_dry_run_writes_nothing(alone: Setup) -> None:
    would = alone.succeed("certificates", "--dry-run").would
    assert [line for line in would if line.startswith("write")] == [
        f"write {alone.state}/{name}"
        for name in ("certs/ca.crt", "certs/ca.key", "certs/server.crt", "certs/server.key", "record")
    ]
    assert not alone.state.exists()


def test_uninstalling_takes_back_its_files_and_no_others(alone: Setup) -> None:
    alone.succeed("certificates")
    (alone.state / "certs/mine.txt").write_text("mine\n")
    alone.succeed("certificates", "--uninstall")
    assert [path.name for path in alone.state.rglob("*")] == ["certs", "mine.txt"]
