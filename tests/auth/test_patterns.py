import re
import time

import pytest
from hypothesis import example, given, settings, strategies as st

from app.auth.patterns import translated


def matches(pattern: str, name: str) -> bool:
    return translated(pattern).fullmatch(name) is not None


def naive(pattern: list[str], name: list[str]) -> bool:
    """What the words mean, tried in every way there is."""
    if not pattern or not name:
        return not pattern and not name
    first, *rest = pattern
    if first != "**":
        return naive_segment(first, name[0]) and naive(rest, name[1:])
    least = 0 if rest else 1
    return any(naive(rest, name[count:]) for count in range(least, len(name) + 1))


def naive_segment(pattern: str, text: str) -> bool:
    if not pattern:
        return not text
    if pattern[0] != "*":
        return text[:1] == pattern[0] and naive_segment(pattern[1:], text[1:])
    return any(naive_segment(pattern[1:], text[count:]) for count in range(len(text) + 1))


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("team/app", ["team/app"], ["team", "team/app/x", "x/team/app", "team/apps", "team-app"]),
        ("team/*", ["team/app", "team/b"], ["team", "team/app/x", "teams/app"]),
        ("team/**", ["team/app", "team/app/x/y"], ["team", "teams/app", "x/team/app"]),
        ("**", ["a", "a/b", "docker.io/library/alpine"], []),
        ("*", ["a", "a-b"], ["a/b"]),
        ("*/*", ["a/b"], ["a", "a/b/c"]),
        ("**/app", ["app", "a/app", "a/b/app"], ["app/a", "a/myapp"]),
        ("a/**/z", ["a/z", "a/b/z", "a/b/c/z"], ["a", "az", "a/z/b"]),
        ("**/x/**", ["x/a", "a/x/b", "x/x/a"], ["x", "a/x", "a/b"]),
        ("**/**", ["a", "a/b"], []),
        (
            "docker.io/library/*",
            ["docker.io/library/alpine"],
            ["dockerxio/library/alpine", "docker.io/grafana/grafana"],
        ),
        ("app-*", ["app-1", "app-a-b"], ["app", "my-app-1", "app-1/x"]),
        ("*-dev/a*z", ["x-dev/az", "x-dev/a-z"], ["x-dev/a", "dev/az"]),
        ("registry.example_5000/**", ["registry.example_5000/a"], ["registry.example.5000/a"]),
    ],
)
def test_a_pattern_means(pattern: str, matching: list[str], others: list[str]) -> None:
    assert [name for name in matching if not matches(pattern, name)] == []
    assert [name for name in others if matches(pattern, name)] == []


SEGMENTS = st.text("ab", min_size=1, max_size=4)
NAMES = st.lists(SEGMENTS, min_size=1, max_size=5).map("/".join)
WILD = st.one_of(
    st.just("**"), st.just("*"), st.text("ab*", min_size=1, max_size=5).filter(lambda text: "**" not in text)
)
PATTERNS = st.lists(WILD, min_size=1, max_size=5).map("/".join)


@settings(max_examples=1000, deadline=None)
@given(PATTERNS, NAMES)
@example("**/a*b/**/*", "aab/b/ab/a")
@example("**/a/b/**/b", "a/a/b/b")
def test_a_pattern_matches_what_trying_everything_finds(pattern: str, name: str) -> None:
    assert matches(pattern, name) == naive(pattern.split("/"), name.split("/"))


@settings(max_examples=300, deadline=None)
@given(NAMES, st.data())
def test_a_pattern_made_of_a_name_matches_it(name: str, data: st.DataObject) -> None:
    """Random patterns seldom match long names; these always do."""
    segments = [data.draw(st.sampled_from([part, part[:1] + "*", "*" + part[-1:], "*"])) for part in name.split("/")]
    cut = data.draw(st.integers(0, len(segments) - 1))
    for pattern in (segments, ["**", *segments], [*segments[:cut], "**"], [*segments[:cut], "**", *segments[cut:]]):
        assert matches("/".join(pattern), name)


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "/",
        "a/",
        "/a",
        "a//b",
        "A",
        "a b",
        "a**",
        "**a/b",
        "***",
        "a/***/b",
        "localhost:5000/a",
        "a\n",
        "[ab]",
        "ü",
        "a" * 255,
    ],
)
def test_what_is_no_pattern_is_refused_in_words(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"pattern|stands alone"):
        translated(pattern)


@pytest.mark.parametrize("text", ["a.b", "a-b", "a_b", "a__b"])
def test_signs_stand_for_themselves(text: str) -> None:
    assert matches(text, text)
    assert not matches(text, re.sub(r"[._-]+", "x", text))


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("/".join(["**", "a"] * 42), "/".join(["a"] * 126 + ["b"])),
        ("*a" * 126 + "*b", "a" * 254),
        ("**/" + "*a" * 100 + "*b/c", "/".join(["a" * 20] * 12)),
        ("/".join(["**", "*a*a*a*"] * 20), "/".join(["aaaa"] * 50 + ["b"])),
    ],
)
def test_no_name_takes_long_whatever_the_pattern(pattern: str, name: str) -> None:
    expression = translated(pattern)
    began = time.process_time()
    assert expression.fullmatch(name) is None
    assert time.process_time() - began < 0.1
