"""Models in use: published folders, and a pointer that moves only if nobody else has moved it."""

from mtlrank.registry.decision import Decision, decide, markdown, parse_measures
from mtlrank.registry.entry import write_entry
from mtlrank.registry.registry import Change, Registry, model_folder

__all__ = ["Change", "Decision", "Registry", "decide", "markdown", "model_folder", "parse_measures", "write_entry"]
