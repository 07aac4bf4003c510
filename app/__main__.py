"""`python -m app`: the same as `edge-registry`."""

from app.cli import main

main()
