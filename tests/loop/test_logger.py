"""A service shows what a run logs, goes on with the run, and never stops it."""

import pytest
from pytorch_lightning.loggers import CSVLogger

from mtlrank import train
from mtlrank.errors import ConfigError
from mtlrank.loop.logger import MLflow, Service
from mtlrank.run_folder import run_identity
from mtlrank.storage import read_json
from tests.loop.runs import finish, run_until, settings, words

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own
SHORT = ["tasks=[msm_ner]", "datamodule.train_sampler.limits={msm_ner: 60}", "training.epochs=2", "test=true"]


class Unreliable(Service):
    """A service that is gone after the first values."""

    def connect(self, run_id, name, folder):
        return CSVLogger(folder, "there", run_id)

    def finish(self, logger):
        logger.save()

    def log_metrics(self, metrics, step=None):
        super().log_metrics(metrics, step)
        self._logger.log_metrics = self._gone

    def _gone(self, *args):
        raise ConnectionError("nobody is there")


@pytest.fixture
def mlflow(monkeypatch, tmp_path):
    """Values that MLflow has of its only run, by key, and the run."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # as good as a server, for one client
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path / 'mlruns'}")
    from mlflow.tracking import MlflowClient

    def recorded():
        client = MlflowClient()
        (experiment,) = [found for found in client.search_experiments() if found.name == "mtlrank"]
        (run,) = client.search_runs([experiment.experiment_id])
        return run, {key: client.get_metric_history(run.info.run_id, key) for key in run.data.metrics}

    return recorded


@pytest.mark.slow
def test_mlflow_has_the_settings_the_course_and_the_results_of_a_run_that_was_stopped(data_dir, tmp_path, mlflow):
    config = settings(data_dir, tmp_path / "run", *SHORT, "loop/logger=mlflow")
    run_until(config, 10)
    stopped, _ = mlflow()
    assert stopped.info.status == "FAILED"
    metrics = train.run(config)
    run, course = mlflow()
    assert (run.info.run_id, run.info.status) == (stopped.info.run_id, "FINISHED")
    assert run.info.run_name == str(tmp_path / "run")
    for key, value in metrics.items():
        if key.startswith("test/"):
            assert run.data.metrics[key] == pytest.approx(value)
    assert [point.step for point in course["val/msm_ner/Accuracy"]] == [8, 16]
    assert {key: run.data.params[key] for key in ("seed", "training.epochs")} == {"seed": "42", "training.epochs": "2"}


def test_a_run_that_is_forced_is_another_run_there(data_dir, tmp_path, mlflow):
    more = ["tasks=[msm_ner]", "+trainer.limit_train_batches=2", "training.epochs=1", "loop/logger=mlflow"]
    config = settings(data_dir, tmp_path / "run", *more)
    train.run(config)
    first = read_json(tmp_path / "run" / "logger.json")
    train.run({**config, "force": True})
    assert read_json(tmp_path / "run" / "logger.json") != first


def test_names_of_measures_lose_nothing_that_tells_them_apart(tmp_path, mlflow):
    service = MLflow("mtlrank", f"file:{tmp_path / 'mlruns'}")
    service.open(tmp_path, {}, anew=False)
    service.log_metrics({"val/a/nDCG@10": 0.5, "val/a/nDCG@100": 0.25, "val/a/AP(rel=2)": 0.125}, 3)
    service.close()
    run, _ = mlflow()
    assert run.data.metrics == {"val/a/nDCG_10": 0.5, "val/a/nDCG_100": 0.25, "val/a/AP_rel_2_": 0.125}


@pytest.mark.slow
def test_weights_and_biases_keeps_a_run_offline(data_dir, tmp_path):
    more = [*SHORT, "+trainer.limit_train_batches=4", "loop/logger=wandb", "loop.logger.offline=true"]
    code, said = finish(*words(data_dir, tmp_path, *more), env={"WANDB_SILENT": "false"})
    assert code == 0, said
    run_id = read_json(tmp_path / "logger.json")["WandB"]
    (record,) = tmp_path.glob(f"wandb/offline-run-*/run-{run_id}.wandb")
    content = record.read_bytes()
    for key in ("val/msm_ner/Accuracy", "test/msm_ner/Accuracy", "train/msm_ner/loss", "training.epochs"):
        assert key.encode() in content


def test_a_service_that_fails_is_told_once_and_stops_nothing(data_dir, tmp_path, monkeypatch, capsys):
    config = settings(data_dir, tmp_path, *SHORT)
    monkeypatch.setattr(train, "build_service", lambda config: Unreliable())
    metrics = train.run(config)
    assert metrics == read_json(tmp_path / "metrics.json")
    said = capsys.readouterr().err
    assert (
        said.count("Unreliable lacks some values of this run, but the run's folder has all: ConnectionError: nobody")
        == 1
    )
    assert "val/msm_ner/Accuracy" in (tmp_path / "logs" / "attempt_1" / "metrics.csv").read_text()


def test_a_service_out_of_reach_is_told_before_training(data_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    more = ["loop/logger=mlflow", "loop.logger.tracking_uri=http://127.0.0.1:9"]
    with pytest.raises(ConfigError, match=r"loop.logger cannot start a run at MLflow: .* loop/logger=null"):
        train.run(settings(data_dir, tmp_path / "run", *SHORT, *more))
    assert not (tmp_path / "run" / "run.json").exists()


def test_the_same_run_goes_on_with_another_service(data_dir, tmp_path):
    assert run_identity(settings(data_dir, tmp_path)) == run_identity(
        settings(data_dir, tmp_path, "loop/logger=wandb", "loop.logger.project=another")
    )
