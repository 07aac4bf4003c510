"""Why the program does not start: one line for the operator, never a traceback."""


class StartError(Exception):
    """A configuration, file or store that cannot be used; the message says what and how to mend it."""
