"""What a run is made from, beside its settings: data, the weights that it starts from, and the user's own classes."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from mtlrank.about import DATA
from mtlrank.building.dataset import dataset_fingerprint
from mtlrank.building.model import starting_weights
from mtlrank.building.own_classes import own_classes
from mtlrank.config import Config, datasets_of
from mtlrank.datamodule.dataset import PreparedDataset
from mtlrank.errors import ConfigError, DataError
from mtlrank.storage import MANIFEST, read_json, write_json


class MadeFrom(NamedTuple):
    """Hashes of what a run is made from, by its name for people."""

    classes: Mapping[str, str]  # of the user's own, as in `class my_data.MyDataset`
    weights: Mapping[str, str]  # as `starting_weights` gives them
    data: Mapping[str, str] = {}  # by dataset key

    def all(self) -> dict[str, str]:
        """The hashes of all kinds by name."""
        return {**self.classes, **self.weights, **self.data}

    def check_weights(self, config: Config) -> None:
        """Raise `DataError` if the weights to start from are others by now: parts of both may have been read."""
        now = starting_weights(config)
        if changed := [setting for setting, sha256 in self.weights.items() if now.get(setting) != sha256]:
            raise DataError(
                f"The weights that {changed[0]} names changed while they were read. The same command starts again, with "
                "those of now."
            )

    def read(self, datasets: Mapping[str, PreparedDataset]) -> "MadeFrom":
        """The same with the data that these prepared datasets were made from."""
        return self._replace(data={key: str(dataset.manifest["fingerprint"]) for key, dataset in datasets.items()})

    def save(self, run: Path) -> None:
        """Record it in the folder of a run."""
        write_json(run / DATA, self.all())


def around_data(config: Config) -> MadeFrom:
    """All but the data, as it is now."""
    classes = {f"class {name}": sha256 for name, sha256 in own_classes(config).items()}
    return MadeFrom(classes, starting_weights(config))


def fingerprints(config: Config, prepared: Mapping[str, Path] | None) -> dict[str, str]:
    """What a run that begins now is made from, by name; its data are those in the folders `prepared`, by key, if any."""
    if prepared is not None:
        data = {key: read_json(folder / MANIFEST)["fingerprint"] for key, folder in prepared.items()}
    else:
        data = {key: dataset_fingerprint(config, key) for key in datasets_of(config)}
    return around_data(config)._replace(data=data).all()


def check_unchanged(run: Path, config: Config, prepared: Mapping[str, Path] | None) -> None:
    """Refuse a finished run if what it was made from has changed since; weights that it started from may be gone."""
    if not (run / DATA).exists():
        return
    learnt, now = read_json(run / DATA), fingerprints(config, prepared)
    if changed := [key for key in now if learnt.get(key, now[key]) != now[key]]:
        raise ConfigError(
            f"{run} is finished, but what it was made from has changed since: {', '.join(changed)}. Choose another "
            "output_dir, or replace that run with force=true."
        )
