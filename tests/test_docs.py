"""What the READMEs say is true: every setting and command is there, every room has a page, every link leads somewhere.

`python -m tests.test_docs` writes the generated tables of README.md and app/README.md anew.
"""

import re
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final

import pytest
from pydantic_core import PydanticUndefined
from typer.main import get_command

from app import fields
from app.cli import command
from app.settings import Settings

ROOT: Final = Path(__file__).resolve().parents[1]
README: Final = ROOT / "README.md"
PAGES: Final = sorted(
    path
    for pattern in ("*.md", "app/**/*.md", "storage/*.md", "tests/*.md", "scripts/*.md", "bench/*.md", "k8s/**/*.md")
    for path in ROOT.glob(pattern)
)
ROOMS: Final = [ROOT / "app", *sorted(path.parent for path in ROOT.glob("app/**/*/__init__.py"))]


def settings() -> Iterator[tuple[str, Any, str]]:
    """Dotted key, default as people write it, and description of every setting."""
    for key, field in fields.described(Settings):
        default = field.get_default(call_default_factory=True)
        yield key, fields.readable(default, field), field.description or ""


def commands(found: Any, path: str) -> Iterator[tuple[str, str]]:
    """Every command that does something, and the first line of its manual."""
    if not hasattr(found, "commands"):
        yield path, (found.help or "").strip().partition("\n")[0]
        return
    for name, inner in found.commands.items():
        yield from commands(inner, f"{path} {name}")


def settings_table() -> str:
    rows = [f"| `{key}` | {_shown(default)} | {_cell(text)} |" for key, default, text in settings()]
    return "\n".join(["| key | default | what it is |", "|---|---|---|", *rows])


def commands_table() -> str:
    rows = [f"| `{path}` | {_cell(text)} |" for path, text in commands(get_command(command._root), "edge-registry")]
    return "\n".join(["| command | what it does |", "|---|---|", *rows])


def _shown(default: Any) -> str:
    if default is PydanticUndefined:
        return "required"
    if default is None:
        return "unset"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, list):
        return ", ".join(f"`{part}`" for part in default) or "empty"
    return f"`{default}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


TABLES: Final = {"settings": settings_table, "commands": commands_table}
PLACES: Final = {"settings": ROOT / "app/README.md", "commands": ROOT / "app/cli/README.md"}


def _between(name: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- {name}: [^>]*-->\n).*?(<!-- /{name} -->)", re.DOTALL)


def written(text: str) -> str:
    """A README with its generated tables as they must be."""
    for name, table in TABLES.items():
        found = _between(name).search(text)
        text = text if found is None else f"{text[: found.start()]}{found[1]}{table()}\n{found[2]}{text[found.end() :]}"
    return text


@pytest.mark.parametrize("name", TABLES)
def test_pages_list_every_setting_and_every_command_as_they_are(name: str) -> None:
    text = PLACES[name].read_text()
    assert _between(name).search(text), f"{PLACES[name]} has no place for the {name}"
    assert text == written(text), "run `.venv/bin/python -m tests.test_docs`, which writes these tables anew"


def test_every_setting_says_what_it_is_and_can_be_set() -> None:
    found = list(settings())
    whole = {key for key, _, _ in found if "[]" not in key}
    assert whole == {leaf.key for leaf in fields.leaves(Settings())} == set(fields.roots(Settings))
    assert {"proxy.upstreams[].url", "proxy.upstreams[].credentials.password", "listeners[].port"} <= {
        key for key, _, _ in found
    }
    assert [key for key, _, text in found if not text] == []


def test_every_command_has_a_manual() -> None:
    found = list(commands(get_command(command._root), "edge-registry"))
    assert ("edge-registry serve", "Starts the registry.") in found
    assert [path for path, text in found if not text] == []


@pytest.mark.parametrize("room", ROOMS, ids=[str(room.relative_to(ROOT)) for room in ROOMS])
def test_every_room_has_a_page_that_names_its_files(room: Path) -> None:
    named = re.findall(r"`([\w*]+\.py)`", (room / "README.md").read_text())
    # Every room has a `settings.py`, and it is the same everywhere.
    files = [path.name for path in room.glob("*.py") if not path.name.startswith("__") and path.name != "settings.py"]
    assert [name for name in sorted(files) if not any(fnmatch(name, pattern) for pattern in named)] == []


@pytest.mark.parametrize("folder", ["storage", "tests", "scripts", "bench"])
def test_every_folder_beside_the_service_has_a_page(folder: str) -> None:
    assert (ROOT / folder / "README.md").read_text().startswith("# ")


@pytest.mark.parametrize("page", PAGES, ids=[str(path.relative_to(ROOT)) for path in PAGES])
def test_every_link_of_a_page_leads_to_a_file_or_heading(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        path, _, heading = target.partition("#")
        file = (page.parent / path) if path else page
        assert file.exists(), f"{page.name}: {target}"
        if heading:
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            assert heading in {re.sub(r"[^\w\- ]", "", one).lower().replace(" ", "-") for one in headings}, target


def test_the_readme_says_why_for_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [re.split(r"[\[>=<~! ]", dependency)[0] for dependency in project["dependencies"]]
    section = README.read_text().partition("\n## Dependencies")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([a-z0-9-]+)", section, re.MULTILINE)
    assert [name for name in names if name not in rows] == []


def test_the_readme_names_all_scripts_and_promises_and_stays_short() -> None:
    text = README.read_text()
    assert len(text.splitlines()) < 380
    for script in ("scripts/serve", "scripts/test", "scripts/bench", "scripts/dotenv"):
        assert (ROOT / script).exists()
        assert script in text
    assert re.findall(r"^\| G(\d)", text, re.MULTILINE) == list("12345678")


def test_the_changelog_begins_with_the_version_of_the_project() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    first = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first is not None
    assert first[1] == version


if __name__ == "__main__":
    for place in PLACES.values():
        place.write_text(written(place.read_text()))
