"""What several verbs read in the same way: lists, platforms, passwords."""

import io
import sys
from pathlib import Path

import pytest

from app.cli.lists import named, parsed, platforms
from app.cli.reading import password_on_stdin, readable
from app.errors import StartError
from app.oci.names import parse_name


class _Stdin(io.TextIOWrapper):
    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="utf-8")


def test_what_is_named_comes_once_in_order_without_comments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = tmp_path / "first"
    first.write_text("# all of them\nb:1  # the old one\n\n a:1\n")
    monkeypatch.setattr(sys, "stdin", _Stdin(b"c:1\nb:1\n"))
    assert named(["a:1"], [str(first), "-"]) == ["a:1", "b:1", "c:1"]
    assert named(None, None) == []


def test_a_list_that_cannot_be_read_is_named_with_the_reason(tmp_path: Path) -> None:
    garbled = tmp_path / "garbled"
    garbled.write_bytes(b"\xff\xfe")
    with pytest.raises(StartError, match=f"^cannot read the list {garbled}: it is not UTF-8 text$"):
        named(None, [str(garbled)])
    with pytest.raises(StartError, match=f"^cannot read the list {tmp_path}/none: No such file or directory$"):
        named(None, [f"{tmp_path}/none"])


def test_everything_that_is_wrong_is_said_at_once_and_nothing_is_taken() -> None:
    assert parsed(["team/app", "team/web"], parse_name) == ["team/app", "team/web"]
    with pytest.raises(StartError) as refused:
        parsed(["Team", "team/app", "x" * 300 + "!"], parse_name)
    first, second = str(refused.value).splitlines()
    assert first.startswith("'Team': ")
    assert second.startswith(f"'{'x' * 200}': ")


def test_platforms_can_be_repeated_or_parted_by_commas() -> None:
    assert platforms(["linux/amd64, linux/arm64", "linux/arm/v7"]) == ["linux/amd64", "linux/arm64", "linux/arm/v7"]
    assert platforms(None) == []


def test_all_is_a_platform_unless_it_means_the_same_as_none() -> None:
    assert platforms(["all,linux/arm64"]) == ["all", "linux/arm64"]
    assert platforms(["all,linux/arm64"], drop_all=True) == ["linux/arm64"]


@pytest.mark.parametrize("text", ["arm64", "Linux/arm64", "linux/arm64/v8/x", "linux/arm64,", "linux/all/"])
def test_what_is_no_platform_is_refused_by_name(text: str) -> None:
    with pytest.raises(StartError, match=r"is no platform such as linux/arm64, and not `all`$"):
        platforms([text])
    with pytest.raises(StartError, match=r"is no platform such as linux/arm64$"):
        platforms([text], drop_all=True)


def test_a_password_on_standard_input_loses_only_the_end_of_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", _Stdin(" p\u00e4ss \r\n".encode()))
    assert password_on_stdin() == " p\u00e4ss "


def test_a_password_that_is_no_text_is_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", _Stdin(b"hush\xff\n"))
    with pytest.raises(StartError) as refused:
        password_on_stdin()
    assert str(refused.value) == "the password on standard input is not UTF-8 text"


def test_a_refusal_of_what_was_read_stays_what_it_is() -> None:
    with pytest.raises(StartError, match=r"^no inventory$"), readable("have.txt"):
        raise StartError("no inventory")
