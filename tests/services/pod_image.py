"""Images for pods, made of what is on this machine: the registry, MinIO and a workload; no base image, no daemon."""

import compileall
import hashlib
import importlib.metadata
import importlib.util
import os
import py_compile
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from tests.services.archives import Layer, write_archive, write_program
from tests.services.clients import CHECKOUT, find_program

USER: Final = 65532
STDLIB: Final = f"usr/lib/python{sys.version_info.major}.{sys.version_info.minor}"
HOME: Final = "opt/edge-registry"
PACKAGES: Final = f"{HOME}/{STDLIB.removeprefix('usr/')}/site-packages"
UNUSED: Final = {"test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "site-packages"}
"""Folders of the standard library that no service imports, and the packages, which are another layer."""
LIBRARY: Final = re.compile(r"(?:=> )?(/\S+) \(0x")
COMMAND: Final = b"""\
#!/opt/edge-registry/bin/python3
import sys

from app.cli import main

if __name__ == "__main__":
    sys.exit(main())
"""
"""As pip writes it: workers import it again, and must not start a registry each."""
AUTHORITIES: Final = Path("/etc/ssl/certs/ca-certificates.crt")
IMAGE: Final = f"edge-registry:{tomllib.loads((CHECKOUT / 'pyproject.toml').read_text())['project']['version']}"
"""As the chart names it."""
MINIO_IMAGE: Final = "minio:test"
HELLO_IMAGE: Final = "hello:test"


def write_registry_image(target: Path, cache: Path, name: str = IMAGE) -> Path:
    """The registry of this checkout as an image archive, run as the Dockerfile's image is: its entry point, its user.

    The layers of Python and of the packages are kept in `cache` until requirements.lock or Python changes.
    """
    cache.mkdir(parents=True, exist_ok=True)
    base = cache / f"python-{_fingerprint()}.layer"
    if not base.exists():
        for stale in cache.glob("python-*.layer"):
            stale.unlink()
        part = base.with_suffix(f".{os.getpid()}")
        with Layer(part) as layer:
            _add_base(layer)
        part.rename(base)
    with tempfile.TemporaryDirectory() as folder:
        own = Path(folder) / "own.layer"
        with Layer(own) as layer:
            _add_registry(layer, Path(folder))
        config = {
            "Entrypoint": ["edge-registry"],
            "Cmd": ["serve"],
            "User": f"{USER}:{USER}",
            "WorkingDir": "/var/lib/edge-registry",
            "ExposedPorts": {"5045/tcp": {}},
            "Env": [
                f"PATH=/{HOME}/bin:/usr/bin:/bin",
                "PYTHONDONTWRITEBYTECODE=1",
                "PYTHONUNBUFFERED=1",
                "EDGE_REGISTRY_STORAGE__FILESYSTEM__ROOT=/var/lib/edge-registry",
            ],
        }
        return write_archive(target, name, [base, own], config)


def write_minio_image(target: Path, program: Path, name: str = MINIO_IMAGE) -> Path:
    """MinIO and a shell, with the libraries that `program` needs, if any."""
    with tempfile.TemporaryDirectory() as folder:
        layer = Path(folder) / "minio.layer"
        with Layer(layer) as files:
            files.copy(program, "usr/bin/minio", mode=0o755)
            _add_shell(files)
            _add_libraries(files, [program])
            files.folder("data", mode=0o777)
            files.folder("tmp", mode=0o1777)
        return write_archive(target, name, [layer], {"Entrypoint": ["minio"], "Env": ["PATH=/usr/bin:/bin"]})


def write_hello_image(target: Path, program: Path, name: str = HELLO_IMAGE) -> Path:
    """The workload of `tests/services/cluster/hello.c`."""
    return write_program(target, name, [program], {"ExposedPorts": {"8080/tcp": {}}})


def _fingerprint() -> str:
    lock = (CHECKOUT / "requirements.lock").read_bytes()
    recipe = Path(__file__).read_bytes() + Path(__file__).with_name("archives.py").read_bytes()
    return hashlib.sha256(lock + recipe + sys.version.encode()).hexdigest()[:16]


def _add_base(layer: Layer) -> None:
    """Python with its standard library, the packages of the lock file, and every shared library they need."""
    for path in ("usr", "usr/bin", "usr/lib", "etc", "var", "var/lib"):
        layer.folder(path)
    layer.folder("tmp", mode=0o1777)
    for path in ("etc/edge-registry", "var/lib/edge-registry"):
        layer.folder(path, owner=USER)
    layer.write("etc/passwd", f"root:x:0:0::/:/bin/sh\nedge:x:{USER}:{USER}::/var/lib/edge-registry:/bin/sh\n".encode())
    layer.write("etc/group", f"root:x:0:\nedge:x:{USER}:\n".encode())
    layer.write("etc/nsswitch.conf", b"hosts: files dns\n")
    _add_shell(layer)
    interpreter = Path(sys.executable).resolve()
    layer.copy(interpreter, "usr/bin/python3", mode=0o755)
    layer.write(f"{HOME}/pyvenv.cfg", b"home = /usr/bin\ninclude-system-site-packages = false\n")
    for name in ("python", "python3"):
        layer.link(f"{HOME}/bin/{name}", "/usr/bin/python3")
    binaries = [interpreter]
    for source, path in (*_standard_library(), *_packages()):
        layer.copy(source, path)
        if ".so" in source.suffixes:
            binaries.append(source)
    _add_libraries(layer, binaries)
    if AUTHORITIES.exists():
        layer.copy(AUTHORITIES, str(AUTHORITIES).removeprefix("/"))


def _add_shell(layer: Layer) -> None:
    """A shell, which the images that are published have too; left out where busybox is not installed."""
    busybox = find_program("busybox")
    if busybox is None:
        return
    layer.copy(busybox, "usr/bin/busybox", mode=0o755)
    for name in ("sh", "sleep", "cat", "ls", "id", "env", "wget", "kill"):
        layer.link(f"usr/bin/{name}", "busybox")
    layer.link("bin", "usr/bin")


def _standard_library() -> Iterator[tuple[Path, str]]:
    root = Path(sysconfig.get_path("stdlib"))
    for found, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in UNUSED and not name.startswith("config-")]
        for name in files:
            if name.startswith("_tkinter."):
                continue
            source = Path(found) / name
            yield source, f"{STDLIB}/{source.relative_to(root)}"


def _packages() -> Iterator[tuple[Path, str]]:
    """The files of every package that requirements.lock names and this environment has."""
    names = re.findall(r"^([A-Za-z0-9._-]+)==", (CHECKOUT / "requirements.lock").read_text(), re.MULTILINE)
    for name in names:
        try:
            package = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # for another system
        for file in package.files or ():
            source = Path(str(package.locate_file(file)))
            if ".." in file.parts or source.suffix == ".pyc" or not source.exists():
                continue  # what pip compiled comes with its source below
            yield source, f"{PACKAGES}/{file}"
            compiled = Path(importlib.util.cache_from_source(str(source)))
            if source.suffix == ".py" and compiled.exists():
                yield compiled, f"{PACKAGES}/{Path(str(file)).parent}/__pycache__/{compiled.name}"


def _add_libraries(layer: Layer, binaries: Iterable[Path]) -> None:
    """The shared libraries of the system that these files load, and the loader; packages bring some of their own."""
    done = subprocess.run(["ldd", *map(str, binaries)], capture_output=True, text=True, timeout=60, check=False)
    found = {Path(path) for path in LIBRARY.findall(done.stdout)}
    for library in sorted(path for path in found if not path.is_relative_to(sys.prefix)):
        layer.copy(library.resolve(), str(library).removeprefix("/"), mode=0o755)


def _add_registry(layer: Layer, folder: Path) -> None:
    """The registry as its wheel installs it, and its command."""
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, source)
    for name in ("app", "storage"):
        shutil.copytree(CHECKOUT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)],
        cwd=source,
        capture_output=True,
        timeout=60,
        check=True,
    )
    (wheel,) = folder.glob("*.whl")
    installed = folder / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(installed, quiet=1, stripdir=str(installed), invalidation_mode=unchecked)
    for file in sorted(installed.rglob("*")):
        if file.is_file():
            layer.copy(file, f"{PACKAGES}/{file.relative_to(installed)}")
    layer.write(f"{HOME}/bin/edge-registry", COMMAND, mode=0o755)
