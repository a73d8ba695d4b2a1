"""Versions of a file, for changing it only if nobody else has: read, decide, write what you read the version of."""

from typing import NewType

# Opaque: a generation number on Google Cloud Storage, a hash of the content on a local disk.
Version = NewType("Version", str)

# The version of a file that is not there; Google Cloud Storage spells it so too (generation 0).
ABSENT = Version("0")
