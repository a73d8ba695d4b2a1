"""What takes other libraries most of the time in tests: the same results, sooner. conftest imports it for its effects."""

import copy
import inspect
from functools import partial
from types import SimpleNamespace

from hydra._internal import defaults_list
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from kfp.dsl import pipeline_task

Plugins.instance()  # looks for sources of configs, which makes their classes anew: before one is changed below
_OfPackages = SourcesRegistry.instance().resolve("pkg")

# kfp looks up its caller's name. Below pytest it would read the source of a hundred frames each time, which takes seconds.
pipeline_task.inspect = SimpleNamespace(stack=partial(inspect.stack, 0))

# Hydra reads the files of a package anew for each config, and collects the choices so far at each file, for interpolations
# that its list of defaults may have: half of the time of composing one.
_read, _collect_choices = _OfPackages.load_config, defaults_list._create_interpolation_map
_known = {}


def _read_once(source, config_path):
    key = source.provider, source.path, config_path
    if key not in _known:
        _known[key] = _read(source, config_path)
    return copy.deepcopy(_known[key])


def _choices_if_needed(overrides, defaults, self_added):
    if any(default.is_interpolation() for default in defaults if not default.is_self()):
        return _collect_choices(overrides, defaults, self_added)
    return None


_OfPackages.load_config = _read_once
defaults_list._create_interpolation_map = _choices_if_needed
