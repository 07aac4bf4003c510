import itertools
from datetime import timedelta
from pathlib import Path

import pytest

from app.doctor.certificate import examine_certificate
from app.doctor.names import Host, covers
from app.doctor.report import Verdict
from app.tls.authority import Certificates, make_certificates
from tests.doctor.certificates import self_signed
from tests.doctor.verdicts import bad, the_one

HERE = [Host("registry.example:5045", "https"), Host("192.0.2.7:5045", "https")]


@pytest.fixture
def made(tmp_path: Path) -> Certificates:
    return make_certificates(tmp_path, ["registry.example", "192.0.2.7"])


def test_a_certificate_that_setup_made_is_sound(made: Certificates) -> None:
    checks = examine_certificate(made.certificate, made.key, HERE)
    assert bad(checks) == []
    assert [check.name for check in checks] == ["chain", "key", "names", "expiry"]


def test_a_certificate_that_has_ended_is_named_with_its_last_day(tmp_path: Path) -> None:
    pair = self_signed(tmp_path, ends=timedelta(hours=-1))
    check = the_one(examine_certificate(pair.certificate, pair.key, HERE[:1]))
    assert check.name == "expiry"
    assert check.found.startswith("it ended on 20")
    assert check.fix == f"edge-registry setup certs --folder {tmp_path} --name registry.example"


def test_a_certificate_that_ends_soon_is_a_warning(tmp_path: Path) -> None:
    pair = self_signed(tmp_path, ends=timedelta(days=29))
    check = the_one(examine_certificate(pair.certificate, pair.key, HERE[:1]), Verdict.WARNING)
    assert "in 28 days" in check.found


def test_a_certificate_of_tomorrow_points_at_the_clock(tmp_path: Path) -> None:
    pair = self_signed(tmp_path, begins=timedelta(days=1), ends=timedelta(days=90))
    assert the_one(examine_certificate(pair.certificate, pair.key, HERE[:1])).fix == "timedatectl set-ntp true"


def test_the_end_of_an_authority_counts_as_well(tmp_path: Path) -> None:
    made = make_certificates(tmp_path, ["registry.example"], days=20, ca_days=20)
    found = bad(examine_certificate(made.certificate, made.key, HERE[:1]))
    assert [check.name for check in found] == ["expiry", "signer's expiry"]


def test_a_certificate_for_another_name_says_for_which_and_keeps_them_in_the_fix(made: Certificates) -> None:
    hosts = [*HERE, Host("other.example:5045", "https")]
    check = the_one(examine_certificate(made.certificate, made.key, hosts))
    assert check.found == "it is not for other.example, but for registry.example, 192.0.2.7"
    assert check.fix is not None
    assert check.fix.endswith("--name registry.example --name 192.0.2.7 --name other.example")


def test_the_fix_of_a_name_mends_it(made: Certificates) -> None:
    hosts = [*HERE, Host("other.example:5045", "https")]
    fix = the_one(examine_certificate(made.certificate, made.key, hosts)).fix
    assert fix is not None
    words = fix.split()
    names = [after for word, after in itertools.pairwise(words) if word == "--name"]
    make_certificates(Path(words[words.index("--folder") + 1]), names)
    assert bad(examine_certificate(made.certificate, made.key, hosts)) == []


def test_a_key_of_another_certificate_is_found(made: Certificates, tmp_path: Path) -> None:
    other = self_signed(tmp_path / "other", ends=timedelta(days=90))
    assert the_one(examine_certificate(made.certificate, other.key, HERE)).name == "key"


def test_a_chain_in_the_wrong_order_is_found(made: Certificates, tmp_path: Path) -> None:
    stranger = self_signed(tmp_path / "other", ends=timedelta(days=90))
    pem = made.certificate.read_text()
    first = pem[: pem.index("-----END CERTIFICATE-----") + 26]
    made.certificate.write_text(first + stranger.certificate.read_text())
    assert the_one(examine_certificate(made.certificate, made.key, HERE)).name == "chain"


def test_a_certificate_whose_signer_is_not_behind_it_is_a_warning(made: Certificates) -> None:
    pem = made.certificate.read_text()
    made.certificate.write_text(pem[: pem.index("-----END CERTIFICATE-----") + 26])
    check = the_one(examine_certificate(made.certificate, made.key, HERE), Verdict.WARNING)
    assert "Edge Registry CA" in check.found


def test_files_that_are_not_there_or_are_something_else_are_one_line(made: Certificates, tmp_path: Path) -> None:
    assert "No such file" in the_one(examine_certificate(tmp_path / "none", made.key, HERE)).found
    assert the_one(examine_certificate(made.key, made.key, HERE)).name == "file"
    assert the_one(examine_certificate(made.certificate, tmp_path / "none", HERE)).name == "key"


@pytest.mark.parametrize(
    ("name", "host", "fits"),
    [
        ("*.example.org", "a.example.org", True),
        ("*.example.org", "a.b.example.org", False),
        ("*.example.org", "example.org", False),
        ("Registry.Example", "registry.example", True),
        ("192.0.2.7", "192.0.2.7", True),
        ("2001:db8::1", "2001:db8:0::1", True),
        ("*", "192.0.2.7", False),
    ],
)
def test_names_of_certificates_are_compared_as_clients_do(name: str, host: str, fits: bool) -> None:
    assert covers([name], host) is fits
