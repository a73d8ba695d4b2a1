"""Models in use: published folders, and a pointer that moves only if nobody else has moved it."""

from mtlrank.registry.registry import EVALUATION, MODEL, Change, Registry, model_folder

__all__ = ["EVALUATION", "MODEL", "Change", "Registry", "model_folder"]
