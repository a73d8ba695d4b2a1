"""Models in use: published folders, and a pointer that moves only if nobody else has moved it."""

from mtlrank.registry.history import Change, Source
from mtlrank.registry.registry import Registry, model_folder, model_name, saved_weights

__all__ = ["Change", "Registry", "Source", "model_folder", "model_name", "saved_weights"]
