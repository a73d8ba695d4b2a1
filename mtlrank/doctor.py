"""Checks of what this machine has for mtlrank, and what it lacks.

mtlrank doctor
"""

if __name__ == "__main__":  # `python -m mtlrank.doctor` is `mtlrank doctor`
    from mtlrank.entry import start_command

    start_command("doctor")

import os
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import NamedTuple

import torch
from packaging.requirements import Requirement

from mtlrank import __version__
from mtlrank.about import PACKAGES
from mtlrank.composing.untrusted import own_config_dir
from mtlrank.errors import ResourceError, UserError
from mtlrank.processes import SHARED_MEMORY, has_shared_memory
from mtlrank.storage import home, writable_folder

_EXTRAS = {
    "annotate": "similarity, entities and coreference for any collection",
    "balance": "losses that combine gradients",
    "loggers": "Weights & Biases and MLflow",
    "lora": "low-rank updates",
    "onnx": "export to ONNX",
    "parquet": "data in Parquet files",
    "pipeline": "Kubeflow Pipelines",
}
_MUST = "lacks"  # the state of something without which mtlrank does not run


class Finding(NamedTuple):
    """The result of one check."""

    state: str  # has, note or lacks
    what: str


def run() -> list[Finding]:
    """Check everything and print it. Raises `ResourceError` if something is missing that every run needs."""
    found = []
    for finding in _checks():
        found.append(finding)
        print(f"{finding.state:<6}{finding.what}", flush=True)
    if missing := [finding.what for finding in found if finding.state == _MUST]:
        raise ResourceError(f"{len(missing)} of {len(found)} checks failed: {missing[0]}")
    return found


def _checks() -> Iterator[Finding]:
    yield Finding("has", f"mtlrank {__version__}")
    yield from _packages()
    yield from _devices()
    yield _compiler()
    yield from _folders()
    yield _shared_memory()
    yield from _places()


def _packages() -> Iterator[Finding]:
    """Required packages, and the extras."""
    wanted = [Requirement(text) for text in requires("mtlrank") or []]
    wrong = [lack for each in wanted if each.marker is None and (lack := _lack(each))]
    if wrong:
        yield Finding(_MUST, f"packages: {'; '.join(wrong)}")
    else:
        yield Finding("has", "packages: " + ", ".join(f"{name} {version(name)}" for name in PACKAGES))
    for extra, purpose in _EXTRAS.items():
        mine = [each for each in wanted if each.marker is not None and each.marker.evaluate({"extra": extra})]
        missing = [lack for each in mine if (lack := _lack(each))]
        if missing:
            yield Finding("note", f"no {purpose}: {'; '.join(missing)}. pip install 'mtlrank[{extra}]'")
        else:
            yield Finding("has", f"{purpose} (mtlrank[{extra}])")


def _lack(wanted: Requirement) -> str:
    """Why a requirement is not met; empty if it is."""
    try:
        found = version(wanted.name)
    except PackageNotFoundError:
        return f"{wanted.name} is missing"
    if wanted.specifier.contains(found, prereleases=True):
        return ""
    return f"{wanted.name} is {found}, expected {wanted.specifier}"


def _devices() -> Iterator[Finding]:
    if not torch.cuda.is_available():
        yield Finding("note", f"no GPU: training runs on {torch.get_num_threads()} of {os.cpu_count()} cores")
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        what = f"GPU {number}: {properties.name}, {properties.total_memory >> 30} GiB"
        if (properties.major, properties.minor) >= (8, 0):
            yield Finding("has", f"{what}, bf16 and attention without padding (trainer.precision=bf16-mixed)")
        else:
            yield Finding("note", f"{what}, older than Ampere: no bf16, attention runs padded")


def _compiler() -> Finding:
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler:
        return Finding("has", f"a C++ compiler for training.compile=true: {compiler}")
    return Finding("note", "no C++ compiler: training.compile must stay false")


def _folders() -> Iterator[Finding]:
    """Folders of data, downloads and configs."""
    for name, folder in (("MTLRANK_HOME", home()), ("the current folder", Path.cwd())):
        try:
            writable_folder(folder)
            free = shutil.disk_usage(folder).free >> 30
            yield Finding("has" if free else "note", f"{name}: {folder}, {free:,} GiB free")
        except UserError as error:
            yield Finding(_MUST, f"{name}: {error}")
    for name, purpose in (("IR_DATASETS_HOME", "ir_datasets' downloads"), ("MTLRANK_REAL_DATA", "experiment=trec2019")):
        if not (named := os.environ.get(name)):
            yield Finding("note", f"{name} is not set ({purpose})")
        elif Path(named).is_dir():
            yield Finding("has", f"{name}: {named}")
        else:
            yield Finding("note", f"{name} is {named!r}, which is not a folder yet")
    try:
        if configs := own_config_dir():
            yield Finding("has", f"MTLRANK_CONFIG_DIR: {configs}")
    except UserError as error:
        yield Finding(_MUST, str(error))


def _shared_memory() -> Finding:
    if has_shared_memory():
        return Finding("has", "shared memory for worker processes (datamodule.num_workers)")
    return Finding(
        "note", f"less than {SHARED_MEMORY >> 20} MiB of /dev/shm are free: datamodule.num_workers=0 is used"
    )


def _places() -> Iterator[Finding]:
    """Settings of Google Cloud Storage and the cluster in the environment; nothing is contacted."""
    key = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    if key and not Path(key).is_file():
        yield Finding(_MUST, f"GOOGLE_APPLICATION_CREDENTIALS is {key!r}, which is not a file")
    elif key:
        yield Finding("has", f"GOOGLE_APPLICATION_CREDENTIALS: {key}")
    for name, purpose in (("KFP_ENDPOINT", "a cluster"), ("MTLRANK_IMAGE", "the image of a cluster's steps")):
        named = os.environ.get(name)
        yield Finding("has", f"{name}: {named}") if named else Finding("note", f"{name} is not set ({purpose})")
