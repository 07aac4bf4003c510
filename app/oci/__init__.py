"""The words of the specification and what makes them valid: pure, no I/O."""
