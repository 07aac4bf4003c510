"""The house: how large its parts may be, that each room says what it is, and that imports point one way."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("app", "storage")
FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
LARGE_FILES = {"storage/conformance.py"}  # a suite of tests, one class that drivers subclass
MOST_FILE_LINES, MOST_FUNCTION_LINES = 400, 60
UNSAFE_LOADERS = {"yaml.Loader", "yaml.FullLoader", "yaml.UnsafeLoader"}
FORBIDDEN_IMPORTS = {"pickle", "marshal", "shelve", "dill"}
FORBIDDEN_CALLS = {"eval", "exec", "os.system", "yaml.unsafe_load", "yaml.full_load"}


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=named(path))


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def own_loaders(path: Path) -> set[str]:
    """The classes of this file that extend YAML's safe loader."""
    classes = [node for node in ast.walk(parsed(path)) if isinstance(node, ast.ClassDef)]
    return {found.name for found in classes if [ast.unparse(base) for base in found.bases] == ["yaml.SafeLoader"]}


def test_there_is_something_to_look_at() -> None:
    assert len(FILES) > 50


def test_files_and_functions_are_short() -> None:
    long = []
    for path in FILES:
        lines = len(path.read_text().splitlines())
        if lines > MOST_FILE_LINES and named(path) not in LARGE_FILES:
            long.append(f"{named(path)}: {lines} lines")
        for function in functions(parsed(path)):
            size = (function.end_lineno or 0) - function.body[0].lineno + 1  # a command's options are no code
            if size > MOST_FUNCTION_LINES:
                long.append(f"{named(path)}: {function.name} has {size} lines")
    assert long == []


def test_every_file_says_first_what_it_owns() -> None:
    silent = [
        named(path)
        for path in FILES
        if path.name != "__init__.py" and path.name != "__main__.py" and not ast.get_docstring(parsed(path))
    ]
    assert silent == []


def test_every_room_says_what_it_is() -> None:
    folders = {path.parent for path in FILES}
    silent = [
        named(folder)
        for folder in sorted(folders)
        if not (folder / "README.md").exists() and not ast.get_docstring(parsed(folder / "__init__.py"))
    ]
    assert silent == []


def test_nothing_runs_what_it_reads() -> None:
    found = []
    for path in FILES:
        for node in ast.walk(parsed(path)):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name.partition(".")[0] for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [(node.module or "").partition(".")[0]]
            elif isinstance(node, ast.Call) and ast.unparse(node.func) in FORBIDDEN_CALLS:
                found.append(f"{named(path)}:{node.lineno} {ast.unparse(node.func)}")
            elif isinstance(node, ast.ClassDef):
                bases = {ast.unparse(base) for base in node.bases}
                found += [f"{named(path)}: {base}" for base in bases & UNSAFE_LOADERS]
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "yaml.load":
                loader = ast.unparse(node.args[1])
                assert loader in own_loaders(path), f"{named(path)}:{node.lineno} loads YAML with {loader}"
            found += [f"{named(path)} imports {name}" for name in names if name in FORBIDDEN_IMPORTS]
    assert found == []


def test_storage_knows_nothing_of_the_service() -> None:
    for path in (ROOT / "storage").rglob("*.py"):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ImportFrom | ast.Import):
                assert "app" not in ast.unparse(node).replace(",", " ").replace(".", " ").split(), named(path)


@pytest.mark.skipif(
    not (Path(sys.executable).parent / "lint-imports").exists(), reason="import-linter is not installed"
)
def test_imports_point_one_way() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
