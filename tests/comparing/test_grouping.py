import pytest

from mtlrank.comparing.grouping import group_runs, name_settings
from mtlrank.errors import ConfigError, DataError, StorageError
from mtlrank.storage import write_json
from tests.evaluation.judged_runs import write_config


def grouped(*runs):
    return {name: [path.name for path in paths] for name, paths in group_runs([str(run) for run in runs]).items()}


@pytest.fixture
def runs(tmp_path):
    """Two seeds each of one task and of two tasks."""
    for name, seed, tasks in (("a", 1, ["x"]), ("b", 1, ["x", "y"]), ("c", 2, ["x"]), ("d", 2, ["x", "y"])):
        extra = {f"model.heads.{task}.dropout": 0.1 for task in tasks}
        write_config(tmp_path / name, seed, tasks, **extra)
    return [tmp_path / name for name in "abcd"]


def test_seeds_are_one_system_named_by_what_differs(runs):
    assert grouped(*runs) == {"tasks=x": ["a", "c"], "tasks=x,y": ["b", "d"]}


def test_runs_that_draw_other_labels_with_each_seed_are_one_system(tmp_path):
    for name, seed in (("a", 1), ("b", 2)):
        write_config(tmp_path / name, seed, ["x"], **{"datamodule.train_sampler.draw_seed": seed})
    assert grouped(tmp_path / "a", tmp_path / "b") == {"tasks=x": ["a", "b"]}


def test_all_tasks_by_default_are_the_tasks_that_were_learnt(tmp_path):
    write_config(tmp_path / "a", 1, ["x", "y"])
    write_config(tmp_path / "b", 2, ["x", "y"])
    text = (tmp_path / "b" / "run.json").read_text()
    (tmp_path / "b" / "run.json").write_text(text.replace('[\n    "x",\n    "y"\n  ]', "null"))
    assert "null" in (tmp_path / "b" / "run.json").read_text()
    assert grouped(tmp_path / "a", tmp_path / "b") == {"tasks=x,y": ["a", "b"]}


def test_given_names_win(runs):
    a, b, c, d = runs
    assert grouped(f"one={a}", f"one={b}", c, d) == {"one": ["a", "b"], "tasks=x": ["c"], "tasks=x,y": ["d"]}


def test_a_folder_whose_name_holds_an_equals_sign_is_no_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path / "lr=3", 1, ["x"])
    assert grouped("lr=3") == {"tasks=x": ["lr=3"]}
    assert grouped("one=lr=3") == {"one": ["lr=3"]}


def test_as_few_settings_as_tell_systems_apart():
    base = {"tasks": ["x"], "loop.optimizer.lr": 1e-4, "loop.loss._target_": "mtlrank.loop.loss.Mean", "other.lr": 1}
    faster = {**base, "loop.optimizer.lr": 1e-3}
    muppet = {**base, "loop.loss._target_": "mtlrank.loop.loss.Muppet"}
    assert name_settings([base]) == ["tasks=x"]
    assert name_settings([base, faster]) == ["lr=0.0001", "lr=0.001"]
    assert name_settings([base, muppet]) == ["loss=Mean", "loss=Muppet"]
    assert name_settings([base, faster, muppet]) == [
        "loss=Mean lr=0.0001",
        "loss=Mean lr=0.001",
        "loss=Muppet lr=0.0001",
    ]
    assert name_settings([base, {**faster, "tasks": ["x", "y"]}]) == ["tasks=x", "tasks=x,y"]


def test_words_that_two_keys_share_are_told_apart():
    base = {"tasks": ["x"], "a.lr": 1, "b.lr": 1}
    assert name_settings([base, {**base, "a.lr": 2}, {**base, "b.lr": 2}]) == [
        "a.lr=1 b.lr=1",
        "a.lr=2 b.lr=1",
        "a.lr=1 b.lr=2",
    ]


@pytest.mark.parametrize(
    ("words", "kind", "complaint"),
    [
        ("{a} x={a}", ConfigError, "is named twice"),
        ("x=nowhere", DataError, "'nowhere' does not exist"),
        ("={a}", ConfigError, "neither a folder nor name=FOLDER"),
        ("x=gs://bucket/run", StorageError, "expected a local path"),
        ("{a} {a}/../e", ConfigError, "have the same config and seed 1, so they count once"),
        ("x={a} x={a}/../e", ConfigError, "have the same config and seed 1, so they count once"),
        ("{a}/model", DataError, "model is not a finished run: it has no model"),
        ("{a}/../empty", DataError, "its config has no datasets"),
    ],
)
def test_mistakes(runs, tmp_path, words, kind, complaint):
    write_config(tmp_path / "e", 1, ["x"], **{"model.heads.x.dropout": 0.1})
    write_json(tmp_path / "empty" / "run.json", {})
    write_json(tmp_path / "empty" / "model" / "config.json", {})
    with pytest.raises(kind, match=complaint):
        grouped(*words.format(a=runs[0]).split())
