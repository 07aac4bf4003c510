"""Meaning over a driver: what the keys of the bucket say. See keys.py for the whole bucket in one picture."""
