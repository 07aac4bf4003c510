"""Whether a user of an htpasswd file has a password: `users.py check FILE USER`, the password on standard input."""

import sys

from passlib.apache import HtpasswdFile


def main(file: str, user: str) -> None:
    """The exit status is 0 where the user is there and has it, else 1."""
    sys.exit(not HtpasswdFile(file).check_password(user, sys.stdin.read()))


if __name__ == "__main__":
    main(*sys.argv[2:])
