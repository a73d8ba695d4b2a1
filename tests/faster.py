"""What takes other libraries most of the time in tests: the same results, sooner. conftest imports it for its effects."""

import copy
import dataclasses
import inspect
from functools import partial
from types import SimpleNamespace

from hydra._internal import config_loader_impl, defaults_list
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from kfp.dsl import pipeline_task

Plugins.instance()  # looks for sources of configs, which makes their classes anew: before one is changed below
_OfPackages = SourcesRegistry.instance().resolve("pkg")

# kfp looks up its caller's name. Below pytest it would read the source of a hundred frames each time, which takes seconds.
pipeline_task.inspect = SimpleNamespace(stack=partial(inspect.stack, 0))

# Hydra reads the files of a package anew for each config, and collects the choices so far at each file, for interpolations
# that its list of defaults may have: half of the time of composing one. Most of the rest is the list itself and what it
# merges to, which the same choices of the same packages make again.
_read, _collect_choices = _OfPackages.load_config, defaults_list._create_interpolation_map
_list_defaults = config_loader_impl.create_defaults_list
_merge = config_loader_impl.ConfigLoaderImpl._compose_config_from_defaults_list
_known, _lists, _merged = {}, {}, {}


def _read_once(source, config_path):
    key = source.provider, source.path, config_path
    if key not in _known:
        _known[key] = _read(source, config_path)
    return copy.deepcopy(_known[key])


def _choices_if_needed(overrides, defaults, self_added):
    if any(default.is_interpolation() for default in defaults if not default.is_self()):
        return _collect_choices(overrides, defaults, self_added)
    return None


def _list_once(repo, config_name, overrides_list, prepend_hydra, skip_missing):
    wanted = {"repo": repo, "config_name": config_name, "overrides_list": overrides_list}
    wanted |= {"prepend_hydra": prepend_hydra, "skip_missing": skip_missing}
    if any(source.scheme() == "file" for source in repo.get_sources()):  # a test may change them
        return _list_defaults(**wanted)
    chosen = defaults_list.Overrides(repo=repo, overrides_list=overrides_list)
    choices = chosen.override_choices, chosen.append_group_defaults, chosen.deletions
    key = repr((config_name, prepend_hydra, skip_missing, choices))
    if key not in _lists:
        _lists[key] = _list_defaults(**wanted)
    return dataclasses.replace(_lists[key], config_overrides=chosen.config_overrides)


def _merge_once(loader, defaults, repo):
    if not any(defaults is known.defaults for known in _lists.values()):
        return _merge(loader, defaults, repo)
    if id(defaults) not in _merged:
        _merged[id(defaults)] = _merge(loader, defaults, repo)
    return copy.deepcopy(_merged[id(defaults)])


_OfPackages.load_config = _read_once
defaults_list._create_interpolation_map = _choices_if_needed
config_loader_impl.create_defaults_list = _list_once
config_loader_impl.ConfigLoaderImpl._compose_config_from_defaults_list = _merge_once
