import pytest

from mtlrank.comparing.confounds import confounds
from mtlrank.comparing.grouping import group_runs
from mtlrank.storage import write_json
from tests.evaluation.judged_runs import write_config, write_ranking


@pytest.fixture
def write(tmp_path):
    """Writes the settings of a run; gives its folder, or `name=folder`."""

    def written(folder, seed=1, tasks=("x",), system="", **settings):
        settings = {key.replace("__", "."): value for key, value in settings.items()}
        write_config(tmp_path / folder, seed, tasks, **settings)
        return f"{system}={tmp_path / folder}" if system else str(tmp_path / folder)

    return written


def told(*runs):
    return confounds(group_runs(runs))


def test_seeds_and_what_a_name_says_are_no_confounds(write):
    batches = {f"{place}__batch_size": 4 for place in ("training", "datamodule")}  # one takes its value from the other
    more = dict.fromkeys(batches, 12)
    runs = [write("a", 1, **batches), write("b", 2, **batches), write("c", 1, **more), write("d", 2, **more)]
    assert list(group_runs(runs)) == ["batch_size=4", "batch_size=12"]
    assert told(*runs) == []


def test_the_seed_of_random_weights_is_the_seed(write):
    runs = [write("a", 1, loop__loss__seed=1), write("b", 2, loop__loss__seed=2)]
    assert list(group_runs(runs)) == ["tasks=x"]
    assert told(*runs) == []


def test_runs_of_one_name_that_differ_in_more_than_their_seed(write):
    runs = [write("a", 1, system="x", loop__lr=1e-3), write("b", 2, system="x", loop__lr=1e-5)]
    (note,) = told(*runs)
    assert note.startswith("x: its 2 runs differ not only in their seed, but in loop.lr (0.001, 1e-05): ")


def test_what_a_name_of_few_settings_leaves_out(write):
    batches = {"training__batch_size": 12, "datamodule__batch_size": 12}
    runs = [
        write("a", 1, ["x"], training__epochs=3, **dict.fromkeys(batches, 4)),
        write("b", 1, ["x", "y"], training__epochs=3, trainer__limit=40, **batches),
    ]
    assert told(*runs) == [
        "tasks=x and tasks=x,y also differ in: trainer.limit (null, 40), training.batch_size and datamodule.batch_size "
        "(4, 12)."
    ]


def test_named_systems_may_have_the_same_settings(write):
    """As before and after a change of one's own code."""
    alike = [write("a", 1, system="before"), write("b", 2, system="after")]
    assert told(*alike) == []
    (note,) = told(*alike, write("c", 1, system="other", loop__lr=1e-5))
    assert note == "before and after and other differ in: loop.lr (null, null, 1e-05)."


def test_given_names_say_nothing_of_the_settings(write):
    runs = [write("a", 1, ["x"], system="one"), write("b", 1, ["x", "y"], system="two")]
    assert told(*runs) == ["one and two differ in: tasks (x, x,y)."]


def test_what_follows_from_other_tasks_and_parts_is_no_confound(write):
    adam = {
        "loop__optimizer___target_": "mtlrank.Adam",
        "loop__optimizer__lr": 1,
        "loop__optimizer__betas": [0.9, 0.99],
    }
    other = {"loop__optimizer___target_": "mtlrank.Adafactor", "loop__optimizer__lr": 2, "loop__optimizer__clip": 1}
    runs = [
        write("a", 1, ["x"], system="one", **adam, model__heads__x__dropout=0.1),
        write("b", 1, ["x", "y"], system="two", **other, model__heads__x__dropout=0.1, model__heads__y__dropout=0.1),
    ]
    assert told(*runs) == [
        "one and two differ in: tasks (x, x,y), loop.optimizer._target_ (Adam, Adafactor), loop.optimizer.lr (1, 2)."
    ]


def test_long_values_are_cut_and_names_are_whole(write):
    tasks = [f"annotated_set_{i}" for i in range(9)]
    runs = [write("a", 1, tasks, system="one", path="/x" * 40), write("b", 1, ["x"], system="two", path="/y")]
    assert told(*runs) == [
        f"one and two differ in: tasks (…,{','.join(tasks[-3:])}, x), path (…{'/x' * 30}, /y).",
    ]


def test_many_differences_are_counted(write):
    runs = [write(name, 1, system=name, **{f"k{i}": f"{i}{name}" for i in range(15)}) for name in "ab"]
    assert told(*runs)[0].endswith("k3 (3a, 3b), k4 (4a, 4b) and 5 more.")


def test_what_says_nothing_of_itself_is_no_confound(write, tmp_path):
    write_ranking(tmp_path / "bare" / "evaluation" / "rank", {"q": 0.5})
    assert told(write("a", system="x"), f"y={tmp_path / 'bare'}") == []


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("x", "data of x"),
        ("model.start_from", "weights of model.start_from"),
        ("class my_loss.Mine", "versions of class my_loss.Mine"),
    ],
)
def test_what_changed_between_runs_of_the_same_settings_is_told(write, tmp_path, name, what):
    settings = {"model__start_from": "runs/first", "datamodule__dataset__datasets__x__train": "pairs.tsv"}
    more = {"datamodule__dataset__datasets__y__train": "other.tsv"}
    runs = [write("a", 1, **settings), write("b", 2, **settings), write("c", 1, ["x", "y"], **settings, **more)]
    for folder in "abc":
        write_json(tmp_path / folder / "data.json", {name: "0123"})
    assert told(*runs) == []
    for changed in "bc":
        write_json(tmp_path / changed / "data.json", {name: "4567"})
        (note,) = told(*runs)
        assert note.startswith(
            f"{runs[0]} and {runs['abc'.index(changed)]} have equal settings but were made from different "
        )
        assert f"different {what}: files changed in between" in note
        write_json(tmp_path / changed / "data.json", {name: "0123"})
    (tmp_path / "b" / "data.json").unlink()  # as of a run of which only the evaluation was kept
    assert told(*runs) == []


def test_other_data_by_other_settings_is_what_the_settings_say(write, tmp_path):
    settings = {f"datamodule__dataset__datasets__x__{key}": value for key, value in (("name", "x"), ("train", "x.tsv"))}
    runs = [write("a", system="alone", **settings), write("b", system="mixed", **settings)]
    for folder, sha256 in zip("ab", ("0123", "4567"), strict=True):
        write_json(tmp_path / folder / "data.json", {"x": sha256})
    assert any("were made from different data of x" in note for note in told(*runs))
    other = write("b", system="mixed", **settings, datamodule__dataset__datasets__x__max_length=64)
    assert not any("were made from" in note for note in told(runs[0], other))


def test_only_settings_that_data_depend_on_excuse_other_data(write, tmp_path):
    for key, excuses in (("num_workers", False), ("num_shards", True), ("on_bad_row", True)):
        runs = [write(f"{key}/{seed}", seed, system=str(seed), **{f"prepare__{key}": seed}) for seed in (1, 2, 3)]
        for seed in (1, 2, 3):
            write_json(tmp_path / key / str(seed) / "data.json", {"x": str(seed)})
        assert sum("were made from" in note for note in told(*runs)) == (0 if excuses else 1)
