"""Patterns of repository names: `team/*`, `docker.io/library/**`."""

import re
from collections.abc import Iterable
from itertools import groupby
from typing import Final

ANY_DEPTH: Final = "**"
"""The segment that stands for any number of segments."""

LONGEST: Final = 254
"""Characters of the longest repository name; a longer pattern matches none worth naming."""

_SEGMENT: Final = re.compile(r"[a-z0-9._*-]+")
_SKIP: Final = "(?:[^/]+/)*?"


def translated(pattern: str) -> re.Pattern[str]:
    """The expression that matches, with `fullmatch`, the valid repository names that `pattern` describes.

    `*` stands for any characters within one segment, `**` for any number of segments: none as well, except at the end,
    so that `team/**` is all below `team` and not `team` itself. Its time grows with the product of pattern and
    name at most, whoever chose the name. Raises ValueError with a message for the operator.
    """
    segments = pattern.split("/")
    if len(pattern) > LONGEST:
        raise ValueError(f"a pattern has at most {LONGEST} characters")
    if not all(_SEGMENT.fullmatch(segment) for segment in segments):
        raise ValueError(
            f"{pattern[:60]!r} is no pattern of repository names: write small letters, digits, `.`, `_`, `-`, `*` and `**` "
            "in segments with single slashes between them (a port is written `host_5000`)"
        )
    if any(ANY_DEPTH in segment and segment != ANY_DEPTH for segment in segments):
        raise ValueError(f"{pattern[:60]!r}: `**` stands alone between slashes, `*` within a name")
    return re.compile(_expression(segments))


def _expression(segments: list[str]) -> str:
    deep = segments[0] == ANY_DEPTH
    runs = [list(run) for wild, run in groupby(segments, ANY_DEPTH.__eq__) if not wild]
    if segments[-1] == ANY_DEPTH:
        return _begun(runs, deep=deep) + ".+"
    end = "/".join(map(_of_segment, runs[-1]))
    if len(runs) == 1:
        return (_SKIP if deep else "") + end
    return _begun(runs[:-1], deep=deep) + _SKIP + end


def _begun(runs: Iterable[list[str]], *, deep: bool) -> str:
    """The segments before the last `**`. The first place where a run fits is as good as any later one, so it is kept
    (an atomic group): nothing is tried twice."""
    expression = ""
    for number, run in enumerate(runs):
        text = "".join(_of_segment(segment) + "/" for segment in run)
        expression += f"(?>{_SKIP}{text})" if deep or number else text
    return expression


def _of_segment(segment: str) -> str:
    first, *rest = map(re.escape, segment.split("*"))
    if not rest:
        return first
    *middle, last = rest
    return first + "".join(f"(?>[^/]*?{part})" for part in middle if part) + "[^/]*" + last
