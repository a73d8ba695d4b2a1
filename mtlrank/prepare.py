"""Prepare datasets: read, check, tokenise once, write.

python -m mtlrank.prepare tasks=[trec2019,msm_bm25]
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtlrank.build import prepare_dataset, prepared_folder
from mtlrank.compose import Config, select_tasks
from mtlrank.datamodule.dataset import PreparedDataset
from mtlrank.entry import start
from mtlrank.errors import ConfigError
from mtlrank.storage import MANIFEST, read_json, writable_folder


def run(config: Config, folders: Mapping[str, Path] | None = None) -> dict[str, PreparedDataset]:
    """Prepare what is missing and open everything, by key. `folders` says where; by default that is in `data_dir`."""
    config = select_tasks(config)
    keys = list(config["datamodule"]["dataset"]["datasets"])
    if folders is None:
        folders = {key: prepared_folder(config, key) for key in keys}
    missing = [key for key in keys if key not in folders]
    if missing:
        raise ConfigError(f"No prepared folder for {', '.join(missing)}. There are: {', '.join(folders)}.")
    datasets = {}
    for key in keys:
        writable_folder(folders[key].parent)
        datasets[key] = prepare_dataset(config, key, folders[key])
        _say(datasets[key].manifest["splits"], key, folders[key])
    return datasets


def folders_by_key(folders: Sequence[str | Path]) -> dict[str, Path]:
    """Prepared folders by the key that their manifests name."""
    return {read_json(Path(folder) / MANIFEST)["key"]: Path(folder) for folder in folders}


def _say(splits: dict[str, Any], key: str, folder: Path) -> None:
    sizes = ", ".join(f"{name} {split['samples']:,}" for name, split in splits.items())
    dropped = sum(split["items_dropped"] for split in splits.values())
    cut = f", {dropped:,} spans cut off by truncation left out" if dropped else ""
    print(f"prepared {key}: {sizes} samples{cut} ({folder})", file=sys.stderr, flush=True)


if __name__ == "__main__":
    start("train", run)
