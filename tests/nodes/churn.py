"""`python -m tests.nodes.churn ROOT LIFE`: sets a node up and changes it without end, until it is killed, or `once`."""

import sys
from itertools import cycle
from pathlib import Path

from app.nodes.root import Root
from app.nodes.settings import NodeSettings
from app.nodes.setup import NodeSetup

SHORT = {"hosts": ["one.example:1"], "addresses": {"one.example": "10.0.0.1"}}
LONG = {
    "hosts": ["one.example:1", "two.example:2"],
    "addresses": {f"{'long' * 12}-{number}.example": f"10.0.1.{number}" for number in range(1, 40)},
    "mirror": {"registries": ["*"]},
}


def main() -> None:
    root, life = sys.argv[1:]
    setup = NodeSetup(Root(Path(root)), {})
    if life == "once":
        assert setup.apply(NodeSettings.model_validate(SHORT)).clean
        return
    if life == "remove":
        assert setup.remove().clean
        return
    print("up", flush=True)
    for document in cycle((LONG, SHORT, None) if life == "with removals" else (LONG, SHORT)):
        outcome = setup.remove() if document is None else setup.apply(NodeSettings.model_validate(document))
        assert outcome.clean, outcome.refused


if __name__ == "__main__":
    main()
