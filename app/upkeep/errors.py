"""What upkeep cannot do for a reason of this machine, rather than of the store."""


class NoScratch(Exception):
    """The folder for temporary files cannot be used, or is full; the message says why."""
