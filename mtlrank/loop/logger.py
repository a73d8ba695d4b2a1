"""Services that show a run's values as they come, beside the CSV and TensorBoard files in its folder."""

import re
from abc import abstractmethod
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, MLFlowLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from mtlrank.errors import ConfigError, with_type
from mtlrank.progress import warn
from mtlrank.storage import read_json, write_json

_IDS = "logger.json"  # in a run's folder: the run's id at each service


class Service(Logger):
    """Forwards what a run logs to a service.

    A service that fails during a training does not stop it: the failure is reported once, and the run's own files have all
    values.
    """

    def __init__(self) -> None:
        super().__init__()
        self._logger: Logger | None = None
        self._has_failed = False

    @abstractmethod
    def connect(self, run_id: str | None, name: str, folder: Path) -> Logger:
        """Lightning's logger for a new run, or for the run `run_id` to continue. Raises if it cannot reach it."""

    @abstractmethod
    def finish(self, logger: Logger) -> None:
        """Send what is left and end the run there."""

    @rank_zero_only
    def open(self, folder: Path, settings: Mapping[str, Any], *, anew: bool) -> None:
        """Start a run with these settings, or continue the one that belongs to this folder's run.

        Raises `ConfigError` if the service's package is missing or it cannot be reached.
        """
        kind = type(self).__name__
        ids = read_json(folder / _IDS) if (folder / _IDS).exists() else {}
        run_id = None if anew else ids.get(kind)
        try:
            self._logger = self.connect(run_id, str(folder), folder)
            if run_id is None:
                self._logger.log_hyperparams(dict(settings))
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"loop.logger needs {error.name or kind.lower()}: pip install 'mtlrank[loggers]'."
            ) from error
        except Exception as error:  # services have no common error
            raise ConfigError(
                f"loop.logger cannot start a run at {kind}: {with_type(error)} "
                "Use loop/logger=null to train without it: the run's folder has all values."
            ) from error
        write_json(folder / _IDS, {**ids, kind: self._logger.version})

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._try(lambda logger: logger.log_metrics(dict(metrics), step))

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Does nothing: `open` has logged the run's settings."""

    def finalize(self, status: str) -> None:
        self._try(lambda logger: logger.finalize(status))

    def close(self) -> None:
        """Send what is left and end the run at the service."""
        self._try(self.finish)
        self._logger = None

    @property
    def name(self) -> str | None:
        return type(self).__name__

    @property
    def version(self) -> str | int | None:
        return self._logger.version if self._logger else None

    @rank_zero_only
    def _try(self, work: Callable[[Logger], None]) -> None:
        if self._logger is None:
            return
        try:
            work(self._logger)
        except Exception as error:  # services have no common error
            if not self._has_failed:
                reason = with_type(error)
                warn(f"{self.name} lacks some values of this run, but the run's folder has all: {reason}")
            self._has_failed = True


class WandB(Service):
    """Weights & Biases. `offline` keeps all in the run's folder, for `wandb sync` to send later."""

    def __init__(self, project: str, entity: str | None = None, tags: list[str] | None = None, offline: bool = False):
        super().__init__()
        self.offline = offline
        self.settings = {"project": project, "entity": entity, "tags": tags}

    def connect(self, run_id: str | None, name: str, folder: Path) -> Logger:
        logger = WandbLogger(name=name, id=run_id, save_dir=folder, offline=self.offline, **self.settings)
        assert logger.experiment is not None  # asking for it starts the run
        return logger

    def finish(self, logger: Logger) -> None:
        logger.experiment.finish()


class MLflow(Service):
    """An MLflow tracking server; values are sent in the background."""

    def __init__(self, experiment: str, tracking_uri: str):
        super().__init__()
        self.experiment, self.tracking_uri = experiment, tracking_uri

    def connect(self, run_id: str | None, name: str, folder: Path) -> Logger:
        logger = MLFlowLogger(self.experiment, name, self.tracking_uri, run_id=run_id, synchronous=False)
        assert logger.run_id is not None  # asking for it starts the run
        return logger

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """MLflow's keys allow fewer characters than the names of measures have."""
        super().log_metrics({re.sub(r"[^\w/. -]", "_", key): value for key, value in metrics.items()}, step)

    def finish(self, logger: Logger) -> None:
        import mlflow

        mlflow.flush_async_logging()
        logger.finalize("success")
