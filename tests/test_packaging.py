"""What is shipped around the code: lock files, compose file, image, scripts."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

ROOT: Final = Path(__file__).resolve().parents[1]
LOCKS: Final = ("requirements.lock", "requirements-dev.lock")
PINNED: Final = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;]+)", re.MULTILINE)


def compose() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return read


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_file_names_no_index_and_hashes_every_package(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert "://" not in text
    blocks = re.split(r"\n(?=\S)", text.strip())
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", block) for block in blocks), lock


def test_the_tests_run_with_the_very_versions_that_are_shipped() -> None:
    runtime, dev = (dict(PINNED.findall((ROOT / lock).read_text())) for lock in LOCKS)
    assert runtime
    assert {name: dev.get(name) for name in runtime} == runtime


def test_the_compose_file_bakes_in_no_secret() -> None:
    environment = [
        item for service in compose()["services"].values() for item in service.get("environment", {}).items()
    ]
    secret = [(name, value) for name, value in environment if re.search("PASSWORD|SECRET|_USER|ACCESS_KEY", name)]
    assert len(secret) >= 6
    assert all(re.fullmatch(r"\$\{[A-Z_]+:\?.*\}", value) for name, value in secret)
    assert all(line.endswith("=") for line in (ROOT / ".env.example").read_text().splitlines() if line[:1].isalpha())


def test_the_compose_file_names_exact_images_and_hardens_ours() -> None:
    for name, service in compose()["services"].items():
        assert re.search(r":(RELEASE\.[0-9T-]+Z|local)$", service["image"]), name
        if name != "object-store":
            assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"]), name


def test_the_image_runs_as_nobody_in_particular() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert "USER 65532:65532" in lines
    assert 'ENTRYPOINT ["edge-registry"]' in lines
    assert {line for line in lines if line.startswith("FROM")} == {
        "FROM python:3.13-slim-bookworm AS build",
        "FROM python:3.13-slim-bookworm",
    }


def test_dotenv_writes_other_secrets_every_time_for_its_owner_alone_and_keeps_what_is_there(tmp_path: Path) -> None:
    written = []
    for name in ("one", "two"):
        scripts = tmp_path / name / "scripts"
        scripts.mkdir(parents=True)
        shutil.copy(ROOT / "scripts/dotenv", scripts)
        subprocess.run([scripts / "dotenv"], check=True, capture_output=True)
        file = tmp_path / name / ".env"
        assert file.stat().st_mode & 0o777 == 0o600
        written.append(file.read_text())
        assert subprocess.run([scripts / "dotenv"], check=False, capture_output=True).returncode == 1
        assert file.read_text() == written[-1]
    values = [dict(line.split("=", 1) for line in text.splitlines()) for text in written]
    wanted = {line.rstrip("=") for line in (ROOT / ".env.example").read_text().splitlines() if line.endswith("=")}
    assert set(values[0]) == set(values[1]) == wanted
    for name in ("MINIO_ROOT_PASSWORD", "REGISTRY_SECRET_KEY", "REGISTRY_PASSWORD"):
        assert values[0][name] != values[1][name]
        assert len(values[0][name]) == 40


@pytest.mark.parametrize(
    "script",
    ["serve", "test", "lint", "lock", "bench", "bench-pull", "render", "registry_setup.sh", "dotenv", "../.ci/run"],
)
def test_a_script_can_be_run_and_parses(script: str) -> None:
    path = ROOT / "scripts" / script
    assert os.access(path, os.X_OK)
    subprocess.run(["bash", "-n", path], check=True)


@pytest.fixture
def linted(tmp_path: Path) -> Path:
    """A checkout in which scripts/lint has nothing to run but shellcheck, which is not there."""
    programs = tmp_path / ".venv/bin"
    for folder in (programs, tmp_path / "scripts"):
        folder.mkdir(parents=True)
    for name in ("bash", "dirname", "find", "awk"):
        (programs / name).symlink_to(str(shutil.which(name)))
    for name in ("ruff", "mypy", "lint-imports"):
        (programs / name).symlink_to(str(shutil.which("true")))
    shutil.copy(ROOT / "scripts/lint", tmp_path / "scripts")
    (tmp_path / "scripts/env.sh").write_text(
        f'# shellcheck shell=bash\nset -eu\nroot={tmp_path}\nneed_environment() {{ :; }}\nsay() {{ echo "$*" >&2; }}\n'
    )
    return tmp_path


def lint(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [folder / ".venv/bin/bash", folder / "scripts/lint"],
        env={"PATH": str(folder / ".venv/bin"), **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_lint_without_shellcheck_says_so_and_fails_in_ci_alone(linted: Path) -> None:
    alone, in_ci = lint(linted), lint(linted, CI="true")
    assert (alone.returncode, in_ci.returncode) == (0, 1)
    assert "apt-get install shellcheck" in alone.stderr
    assert "apt-get install shellcheck" in in_ci.stderr


def test_lint_gives_shellcheck_every_script_by_its_first_line_and_fails_where_it_complains(linted: Path) -> None:
    complaining = linted / ".venv/bin/shellcheck"
    complaining.write_text(f'#!{shutil.which("bash")}\nprintf "given %s\\n" "$@"\nexit 1\n')
    complaining.chmod(0o755)
    (linted / "scripts/shell").write_text("#!/bin/sh\n")
    (linted / "scripts/python").write_text("#!/usr/bin/env python3\n")
    done = lint(linted)
    assert done.returncode == 1
    given = {line.removeprefix("given ") for line in done.stdout.splitlines() if line.startswith("given ")}
    assert given == {"--external-sources", "scripts/lint", "scripts/env.sh", "scripts/shell"}


def test_a_machine_whose_python_cannot_make_environments_is_told_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    for name in ("env.sh", "serve"):
        shutil.copy(ROOT / "scripts" / name, tmp_path / "scripts")
    programs = tmp_path / "bin"
    programs.mkdir()
    # A Python as Debian ships it: everything but `ensurepip`.
    stand_in = programs / "python3"
    stand_in.write_text('#!/bin/sh\ncase "$*" in *ensurepip*) exit 1 ;; *version_info*) exit 0 ;; esac\nexit 1\n')
    stand_in.chmod(0o755)
    done = subprocess.run(
        [tmp_path / "scripts/serve"],
        env={"PATH": f"{programs}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "apt-get install python3-venv" in done.stderr
