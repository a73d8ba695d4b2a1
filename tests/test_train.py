"""What a run says and writes when it begins."""

import re

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from mtlrank import __version__, prepare, train
from mtlrank.composing.selection import select_tasks
from mtlrank.errors import ConfigError
from mtlrank.storage import read_json, write_json
from tests.loop.runs import StoppedError, run_until, settings

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own


@pytest.fixture(scope="module")
def data(data_dir, home):
    prepare.run(select_tasks(settings(data_dir, data_dir / "none")))
    return data_dir


@pytest.fixture
def begin(data, tmp_path, monkeypatch, capsys):
    """Begin a run and stop before its first step; the line that it begins with."""

    def stop(*_):
        raise StoppedError

    def begun(*more):
        monkeypatch.setattr(train, "_fit", stop)
        with pytest.raises(StoppedError):
            train.run(settings(data, tmp_path / "run", *more))
        said = capsys.readouterr().err.partition("\nresuming at ")
        (line,) = re.findall("^training .*", said[2] or said[0], re.MULTILINE)
        return line

    return begun


def test_a_run_begins_with_what_it_trains_where_and_how_long(begin, tmp_path):
    start, end = begin().split(" on cpu in 32-true, ")
    learn, total = re.fullmatch(r"training ([\d,]+) of ([\d,]+) parameters of \S+ with 2 heads", start).groups()
    assert learn == total
    assert end == f"45 steps of 8 samples, into {tmp_path / 'run'}; val/trec2019/nDCG@10 chooses the weights"


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["trainer.accumulate_grad_batches=2"], "24 steps of 16 samples"),
        (["trainer.accumulate_grad_batches=2", "training.max_tokens=2000"], "steps of at most 4,000 tokens"),
        (["training.max_steps=1"], "1 step of 8 samples"),
        (["training.monitor=val/msm_ner/Accuracy"], "val/msm_ner/Accuracy chooses the weights"),
        (["training.epochs=0"], "training nothing: "),
        (["model.body.frozen_layers=2"], ", 2 layers frozen with 2 heads"),
    ],
)
def test_what_is_told_is_what_is_done(begin, more, told):
    line = begin(*more)
    assert told in line
    assert ("steps" in line or "1 step" in line) == ("training nothing" not in line)


def test_weights_that_do_not_learn_are_told(begin):
    learn, total = (
        int(number.replace(",", "")) for number in re.findall(r"[\d,]{4,}", begin("model.body.frozen_layers=all"))[:2]
    )
    assert 0 < learn < total / 10


def test_a_run_that_goes_on_says_it_again(data, tmp_path, begin):
    run_until(settings(data, tmp_path / "run"), 5)
    assert "45 steps of 8 samples" in begin()


def test_a_run_that_is_not_finished_says_how_it_began_and_which_attempt_was_the_last(data, tmp_path, monkeypatch):
    for number, command in enumerate(("first", "second")):
        monkeypatch.setattr("sys.argv", ["mtlrank train", command])
        monkeypatch.setattr("mtlrank.about.commit", lambda command=command: f"commit of the {command}")
        run_until(settings(data, tmp_path), 5 + number)
        told = read_json(tmp_path / "about.json")
        assert (told["command"], told["commit"]) == (f"mtlrank train {command}", f"commit of the {command}")
        assert {"seconds", "steps", "weights", "chosen by"}.isdisjoint(told)


def test_a_finished_run_names_the_code_that_it_began_with(data, tmp_path, monkeypatch):
    fit = train._fit

    def fit_and_commit(*args):
        fit(*args)
        monkeypatch.setattr("mtlrank.about.commit", lambda: "later")

    monkeypatch.setattr("mtlrank.about.commit", lambda: "then")
    monkeypatch.setattr(train, "_fit", fit_and_commit)
    train.run(settings(data, tmp_path, "training.max_steps=2"))
    told = read_json(tmp_path / "about.json")
    assert (told["commit"], told["steps"]) == ("then", 2)
    assert told["seconds"] < 600
    assert told["samples"] == 2 * 8


def test_a_run_without_a_test_reports_its_validation(data, tmp_path, capsys):
    values = train.run(settings(data, tmp_path, "training.max_steps=2", "loop.diagnose_every_n_steps=1"))
    page = (tmp_path / "report" / "report.html").read_text()
    assert capsys.readouterr().out.endswith(f"report: {tmp_path / 'report' / 'report.html'}\n")
    assert f"<td>trec2019</td><td>nDCG@10</td><td>{values['val/trec2019/nDCG@10']:.4f}</td><td>0." in page
    assert {"Loss of msm_ner", "Validation of msm_ner"} <= set(re.findall("<h3>(.*)</h3>", page))
    assert "Do the tasks&#39; gradients agree?" in page


def test_a_step_of_a_pipeline_says_what_its_model_is(data, tmp_path, monkeypatch):
    monkeypatch.setattr("mtlrank.about.commit", lambda: "0123abc")
    values = train.run(settings(data, tmp_path, "training.max_steps=2"))
    told = train.summary(tmp_path, values)
    assert (told["mtlrank"], told["commit"], told["steps"], told["seed"]) == (__version__, "0123abc", 2, 42)
    assert told["tasks"] == "trec2019, msm_ner"
    assert told["reached"] == values[told["chosen by"]]
    about = read_json(tmp_path / "about.json")
    assert told["chosen by"] == about["chosen by"] == "val/trec2019/nDCG@10"
    assert told["chosen by"] in about["weights"]
    (tmp_path / "about.json").unlink()
    assert "commit" not in train.summary(tmp_path, {})


def test_the_objective_of_a_sweep_is_what_chose_the_weights(data, tmp_path):
    config = settings(data, tmp_path, "training.max_steps=2", "training.monitor=val/msm_ner/Accuracy", "test=false")
    values = train.run(config)
    assert train.objective(config, values) == values["val/msm_ner/Accuracy"] != values["val/trec2019/nDCG@10"]
    assert train.objective(config, {}) is None, "only the first of several processes has metrics"
    write_json(tmp_path / "about.json", {"chosen by": "val/trec2019/nDCG@10"})
    assert train.objective(config, values) == values["val/trec2019/nDCG@10"]


def test_tensorboard_knows_the_settings_of_a_run_and_shows_no_value_that_was_not_measured(data, tmp_path):
    run_until(settings(data, tmp_path, "loop.optimizer.lr=0.0123", "training.monitor=val/msm_ner/Accuracy"), 5)
    known = {**read_json(tmp_path / "run.json")}
    for logs in ("logs", "tensorboard"):
        assert yaml.safe_load((tmp_path / logs / "attempt_1" / "hparams.yaml").read_text()) == known
    events = EventAccumulator(str(tmp_path / "tensorboard" / "attempt_1")).Reload()
    assert {tag for tag in events.Tags()["scalars"] if not tag.startswith(("lr", "train/"))} == set()
    begun, experiment = (
        HParamsPluginData.FromString(events.SummaryMetadata(f"_hparams_/{tag}").plugin_data.content)
        for tag in ("session_start_info", "experiment")
    )
    assert begun.session_start_info.hparams["loop.optimizer.lr"].number_value == 0.0123
    assert [each.name.tag for each in experiment.experiment.metric_infos] == ["val/msm_ner/Accuracy"]
    assert set(begun.session_start_info.hparams) == set(known)


def test_training_without_validation_is_refused_before_data_are_prepared(tmp_path, capsys):
    without = [f"datamodule.dataset.datasets.{key}.val=null" for key in ("trec2019", "msm_ner")]
    with pytest.raises(ConfigError, match=r"No dataset \(trec2019, msm_ner\) has a val split, so the best checkpoint"):
        train.run(settings(tmp_path / "data", tmp_path / "run", *without))
    assert "prepare" not in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_logs_of_an_earlier_run_go_where_they_are_a_link_too(data, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "logs").symlink_to(tmp_path / "disk")
    words = ["tasks=[msm_ner]", "training.epochs=1", "datamodule.train_sampler.limits={msm_ner: 16}"]
    for seed in (1, 2):
        train.run(settings(data, tmp_path / "run", *words, f"seed={seed}", "force=true"))
    assert (tmp_path / "run" / "logs").is_symlink()
    assert len(list((tmp_path / "disk").iterdir())) == 1


def test_results_of_an_earlier_model_go_with_it(data, tmp_path):
    """Although they are not judged again: `compare` would take them for the new model's."""
    words = ["tasks=[msm_ner]", "training.epochs=0", "datamodule.train_sampler.limits={}"]
    train.run(settings(data, tmp_path, *words, "test=true"))
    assert (tmp_path / "evaluation" / "msm_ner" / "metrics.json").exists()
    train.run(settings(data, tmp_path, *words, "seed=2", "force=true"))
    assert not (tmp_path / "evaluation").exists()
