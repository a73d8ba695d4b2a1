"""Versions of a file, to change it only if nobody else has: read, decide, write with the version that was read."""

from typing import NewType

# Opaque: a generation number on Google Cloud Storage, a hash of the content on a local disk.
Version = NewType("Version", str)

# The version of a file that does not exist; on Google Cloud Storage that is generation 0.
ABSENT = Version("0")
