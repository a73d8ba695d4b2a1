"""Bodies: the shared encoder."""

from mtlrank.model.body.body import MTLBody

__all__ = ["MTLBody"]
