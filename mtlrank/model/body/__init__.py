"""Bodies: the shared encoder."""

from mtlrank.model.body.body import MTLBody
from mtlrank.model.body.part import Part

__all__ = ["MTLBody", "Part"]
