"""How far gc, verify and rebuild are."""

import pytest

from app.cli import progress
from app.cli.stages import Stages


def test_each_stage_has_a_line_of_its_own_and_small_ones_have_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "_LINE_SECONDS", 0.0)
    with Stages() as stages:
        stages.show("listing", 7, 0)
        stages.show("holders", 3, 0)
        stages.show("bytes", 0, 5_000_000)
        stages.show("collecting", 2, 4)
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "listing: 7"
    assert said[1].startswith("hashing blobs: ")
    assert said[2:] == ["collecting: 2 of 4"]
