"""Lines of ours in files of others: between two markers, and out again without a trace."""

from typing import Final

from app.nodes.files import Foreign

BEGIN: Final = "# begin edge-registry: changes up to the end marker are overwritten"
END: Final = "# end edge-registry"
_JOINED: Final = "# begin edge-registry, after a line without end: changes up to the end marker are overwritten"
"""The marker after a last line that had no newline, which goes again when our lines go."""


def block(body: str, indent: str = "", *, joined: bool = False) -> str:
    """The lines of `body` (each with its newline) between markers."""
    begin = ("\n" if joined else "") + indent + (_JOINED if joined else BEGIN)
    return f"{begin}\n{''.join(indent + line for line in body.splitlines(keepends=True))}{indent}{END}\n"


def append(text: str, body: str) -> str:
    """The text with our lines at its end."""
    return text + block(body, joined=bool(text) and not text.endswith("\n"))


def strip(text: str) -> str:
    """The text without any lines of ours, every other byte as it was. Raises Foreign for markers without their pair."""
    kept: list[str] = []
    inside = joined = False
    for line in _lines(text):
        mark = line.strip()
        if mark in (BEGIN, _JOINED):
            if inside:
                raise Foreign("a begin marker of edge-registry has no end marker: mend the file by hand")
            inside, joined = True, mark == _JOINED
        elif mark == END:
            if not inside:
                raise Foreign("an end marker of edge-registry has no begin marker: mend the file by hand")
            inside = False
        elif not inside:
            kept.append(line)
            joined = False  # somebody wrote after us: their line needs the newline
    if inside:
        raise Foreign("a begin marker of edge-registry has no end marker: mend the file by hand")
    result = "".join(kept)
    return result.removesuffix("\n") if joined else result


def inner(text: str) -> str:
    """Only our lines, without the markers. Raises Foreign."""
    strip(text)
    found: list[str] = []
    inside = False
    for line in _lines(text):
        mark = line.strip()
        if mark in (BEGIN, _JOINED):
            inside = True
        elif mark == END:
            inside = False
        elif inside:
            found.append(line)
    return "".join(found)


def replace(text: str, body: str) -> str:
    """The text with these lines of ours where our lines were, else at its end; none for an empty body. Raises Foreign."""
    rest = strip(text)
    if not body:
        return rest
    if inner(text) == "" or text.count(END) != 1:
        return append(rest, body)
    lines = _lines(text)
    marks = [place for place, line in enumerate(lines) if line.strip() in (BEGIN, _JOINED, END)]
    return "".join([*lines[: marks[0] + 1], body, *lines[marks[1] :]])


def _lines(text: str) -> list[str]:
    """Lines with their ends; unlike `splitlines`, only a newline ends one."""
    lines = [line + "\n" for line in text.split("\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]
