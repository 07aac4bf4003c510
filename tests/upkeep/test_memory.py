"""Memory stays flat: a million objects take no more of it than a fifth of them."""

import re
import subprocess
import sys

import pytest


def most(objects: int) -> float:
    """MiB that a collection in a process of its own took."""
    command = [sys.executable, "-m", "tests.upkeep.simulated", str(objects), "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=True)
    assert done.stdout.count("done") == 2, done.stdout
    return max(float(found) for found in re.findall(r"at most (\d+) MiB", done.stdout))


@pytest.mark.slow
def test_memory_is_flat() -> None:
    """By hand, with ten million: 97 MiB after the second collection, 96 after the first."""
    small, large = most(200_000), most(1_000_000)
    print(f"{small} MiB, then {large} MiB")
    assert large < small + 48
    assert large < 180
