"""YAML of the configuration, read strictly: no key twice, no surprises of YAML 1.1 in keys, no content in errors."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from app.errors import StartError

_BOOLEAN: Final = "tag:yaml.org,2002:bool"
_MERGE: Final = "tag:yaml.org,2002:merge"
_TEXT: Final = "tag:yaml.org,2002:str"


def read_mapping(path: Path) -> Mapping[Any, Any]:
    """A configuration file; an empty one is an empty mapping. Raises StartError."""
    document = read(path, "")
    if not isinstance(document, Mapping | None):
        raise StartError(f"the configuration {path} must be a mapping of sections")
    return document or {}


def read(path: Path, before: str) -> Any:
    """What a file holds; `before` begins the messages of errors. Raises StartError."""
    try:
        return parse(path.read_text(encoding="utf-8"), f"{before}the configuration {path}")
    except OSError as error:
        raise StartError(f"{before}cannot read the configuration {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise StartError(f"{before}the configuration {path} is not UTF-8 text") from None


def parse(text: str, name: str) -> Any:
    """What the text says; `name` is whose it is, for errors. Raises StartError."""
    try:
        return yaml.load(text, _StrictLoader)  # noqa: S506 (a SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        problem = re.sub(r"'[^'<]{2,}'", "...", error.problem or "")  # a secret that begins with * or ! would be quoted
        raise StartError(f"{name}{line} is not valid YAML: {problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError):  # PyYAML lets int() and datetime() raise their own
        raise StartError(f"{name} is not valid YAML") from None


def without_nulls(value: Any) -> Any:
    """The value without the keys that were left empty: they are not set."""
    if isinstance(value, Mapping):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [without_nulls(inner) for inner in value] if isinstance(value, list) else value


class _StrictLoader(yaml.SafeLoader):
    """YAML would take the last of two equal keys without a word, and the key `on` for a truth value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping. Raises ConstructorError where a key comes twice."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == _MERGE:
                continue
            if key_node.tag == _BOOLEAN:
                key_node.tag = _TEXT
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(None, None, "a key comes twice", key_node.start_mark)
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)
