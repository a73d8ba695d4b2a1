"""Models in use: published folders, and a pointer that moves only if nobody else has moved it."""

from mtlrank.registry.history import Change, Source
from mtlrank.registry.registry import EVALUATION, MODEL, Registry, model_folder

__all__ = ["EVALUATION", "MODEL", "Change", "Registry", "Source", "model_folder"]
