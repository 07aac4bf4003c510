"""What the set-up of nodes passes on of them, with a stand-in for kubectl: a cluster hangs and forbids too seldom."""

import time

import pytest

from tests.setup.running import Setup

KUBECTL = """#!/bin/sh
case "$*" in
  *' exec '*) {exec} ;;
  *'get pods'*) printf 'pod-1 node-1\\npod-2 node-2\\n' ;;
  *metadata.uid*) echo 1 ;;
  *kubeletVersion*) echo v1.33.0 ;;
  *containerRuntimeVersion*) echo containerd://2.4.2 ;;
  *'get nodes'*) echo node-1 True 192.0.2.7 ;;
  *'get namespace'*) echo namespace/any ;;
  *'get -f'*) ;;
  *) cat >/dev/null ;;
esac
"""


def told(setup: Setup, says: str) -> list[str]:
    """The lines that name a node where asking each of them runs the shell command `says`."""
    kubectl = setup.state.parent / "bin/kubectl"
    kubectl.parent.mkdir()
    kubectl.write_text(KUBECTL.replace("{exec}", says))
    kubectl.chmod(0o755)
    (setup.state / "certs").mkdir(parents=True)
    (setup.state / "certs/ca.crt").write_text("PEM")
    done = setup.succeed("nodes", PATH=f"{kubectl.parent}:{setup.variables['PATH']}")
    return [line.removeprefix("nodes.sh: ") for line in done.stderr.splitlines() if "node-1" in line]


def test_what_two_nodes_lack_is_said_once_in_their_own_order_without_what_moves_a_cursor(alone: Setup) -> None:
    says = r"""printf 'b:\tfirst\033[2J\na: {\n  second\n}\ncommand terminated with exit code 1\n' >&2; exit 1"""
    assert told(alone, says) == [f"node node-1, node-2: {line}" for line in ("b:first[2J", "a: {", "  second", "}")]


@pytest.mark.parametrize("status", [0, 1])
def test_nodes_that_lack_nothing_are_not_spoken_of(alone: Setup, status: int) -> None:
    assert told(alone, f"[ {status} = 0 ] || echo command terminated with exit code 1 >&2; exit {status}") == []


def test_who_may_not_ask_nodes_is_told_so_once(alone: Setup) -> None:
    (line,) = told(alone, "echo 'Error from server (Forbidden): pods \"pod-1\" is forbidden' >&2; exit 1")
    assert line.startswith("what nodes lack could not be asked (node node-1): Error from server (Forbidden)")


@pytest.mark.slow
def test_a_node_that_does_not_answer_holds_nobody_up(alone: Setup) -> None:
    began = time.monotonic()
    (line,) = told(alone, "exec sleep 300")
    assert line == "what nodes lack could not be asked (node node-1): no answer within 15 seconds"
    assert time.monotonic() - began < 60
