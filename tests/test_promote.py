"""`mtlrank promote` as it is typed."""

import shutil
from pathlib import Path

import pytest
from kfp import dsl

from components.promote import component
from mtlrank import promote, train
from mtlrank.composing.compose import compose_config
from mtlrank.errors import ConflictError
from mtlrank.registry import Registry
from mtlrank.registry.decision import decide
from mtlrank.storage import file_hash, join, read_bytes, read_json, remove_folder, write_bytes, write_json
from tests.registry.conftest import typed, write_finished

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own


def test_better_models_take_over_and_worse_ones_do_not(place, tmp_path):
    gains = {"first": 0.0, "better": 0.1, "worse": -0.2}
    runs = {name: write_finished(tmp_path / name, gain=gain) for name, gain in gains.items()}
    done = {name: typed("promote", run, "--registry", place) for name, run in runs.items()}
    assert {name: result.exit_code for name, result in done.items()} == {"first": 0, "better": 0, "worse": 9}
    assert "the first model" in done["first"].stderr
    assert "is promoted: not worse by more than 0.02: rank/AP" in done["better"].stderr
    assert "is not promoted: may be worse by more than 0.02: rank/AP" in done["worse"].stderr
    listed = typed("models", "--registry", place).stdout.splitlines()
    assert len(listed) == 3
    assert listed[-1] == f"in use: {Registry(place).folder(Registry(place).current())}"


def test_a_model_leads_to_its_run(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = write_finished(tmp_path / "run")
    write_json(run / "about.json", {"command": "mtlrank train", "mtlrank": "0.1.0", "commit": "0123456789abcdef"})
    typed("promote", "run", "--registry", place)
    (change,) = Registry(place).history()
    assert change.source == (str(run), "0123456789abcdef", "0.1.0")
    listed = typed("models", "--registry", place).stdout.splitlines()
    assert listed[0].endswith(f"  (from {run}, mtlrank 0.1.0, commit 0123456789ab)")
    write_json(run / "about.json", {"commit": "another"})
    assert typed("promote", "run", "--registry", place).exit_code == 0
    assert len(Registry(place).history()) == 1  # where a model came from is no part of its name


@pytest.mark.parametrize("about", ["", "[]", "{"])
def test_a_run_that_does_not_say_what_it_was_can_be_promoted(tmp_path, about):
    run = write_finished(tmp_path / "run")
    (run / "about.json").write_text(about)
    assert typed("promote", run, "--registry", tmp_path / "r").exit_code == 0
    assert Registry(tmp_path / "r").history()[0].source == (str(run), "unknown", "unknown")


def test_what_was_decided_names_the_model(place, tmp_path):
    good, worse = (write_finished(tmp_path / name, gain=gain) for name, gain in (("good", 0.0), ("worse", -0.2)))
    registry = Registry(place)
    first, again, refused = (promote.of_run(run, registry) for run in (good, good / "model", worse))
    assert first.model == again.model == registry.current()
    assert refused.model in registry.published()
    assert refused.source.run == str(worse)


def test_a_step_of_a_pipeline_names_the_model_and_its_run(place, tmp_path):
    write_finished(tmp_path / "model")
    model = dsl.Model(name="model", uri=str(tmp_path / "model"))
    decision = dsl.Markdown(name="decision", uri=str(tmp_path / "decision"))
    result = dsl.Artifact(name="result", uri=str(tmp_path / "model" / "evaluation"))
    given = {"datasets": [], "results": [result], "model": model, "measures": [], "margin": 0.02}
    component.promote.python_func(**given, registry=place, decision=decision, metrics=dsl.Metrics(uri="m"))
    (change,) = Registry(place).history()
    assert decision.metadata == {"model": change.model, "registry": place}
    assert f"Model: `{change.model}`, from {model.uri}" in Path(decision.path).read_text()
    assert change.source.run == model.uri


def test_a_repeated_command_changes_nothing(place, tmp_path):
    run = write_finished(tmp_path / "run")
    assert typed("promote", run, "--registry", place).exit_code == 0
    again = typed("promote", run, "--registry", place)
    assert again.exit_code == 0
    assert len(Registry(place).history()) == 1


def test_the_judgement_of_another_model_is_refused(tmp_path):
    run = write_finished(tmp_path / "run")
    file = run / "evaluation" / "rank" / "metrics.json"
    write_json(file, {**read_json(file), "weights": "0" * 64})
    done = typed("promote", run, "--registry", tmp_path / "registry")
    assert done.exit_code == 3
    assert "was judged with another model than" in done.stderr
    write_json(file, {**read_json(file), "weights": file_hash(run / "model" / "model.safetensors")})
    assert typed("promote", run, "--registry", tmp_path / "registry").exit_code == 0


@pytest.mark.parametrize("damage", [Path.unlink, lambda file: file.write_text("")])
def test_a_damaged_judgement_is_named_where_it_lies(tmp_path, damage):
    run = write_finished(tmp_path / "run")
    damage(run / "evaluation" / "rank" / "per_query.tsv")
    done = typed("promote", run, "--registry", tmp_path / "registry")
    assert done.exit_code == 3
    assert f"mtlrank: {run}/evaluation/rank" in done.stderr
    assert "entry" not in done.stderr


def test_a_damaged_model_is_not_published(tmp_path):
    run, registry = write_finished(tmp_path / "run"), tmp_path / "registry"
    weights = run / "model" / "model.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(bytes([good[0] ^ 1]) + good[1:])
    done = typed("promote", run, "--registry", registry)
    assert done.exit_code == 3
    assert "model.safetensors was changed or damaged" in done.stderr
    assert list(registry.rglob("model.safetensors")) == []
    assert Registry(registry).current() is None


def test_a_model_in_use_that_is_gone_comes_back_with_its_run(place, tmp_path):
    used, new = (write_finished(tmp_path / name, gain=gain) for name, gain in (("used", 0.0), ("new", 0.1)))
    typed("promote", used, "--registry", place)
    remove_folder(Registry(place).folder(Registry(place).current()))
    done = typed("promote", new, "--registry", place)
    assert done.exit_code == 2
    assert "which is in use: somebody has removed it. Promoting the run that it came from again brings" in done.stderr
    assert typed("promote", used, "--registry", place).exit_code == 0
    assert typed("promote", new, "--registry", place).exit_code == 0


@pytest.mark.parametrize("file", ["per_query.tsv", "metrics.json"])
def test_a_damaged_judgement_of_the_model_in_use_decides_nothing(place, tmp_path, file):
    used, new = (write_finished(tmp_path / name, gain=gain) for name, gain in (("used", 0.2), ("new", 0.0)))
    typed("promote", used, "--registry", place)
    registry = Registry(place)
    damaged = join(registry.folder(registry.current()), f"evaluation/rank/{file}")
    whole = read_bytes(damaged)
    write_bytes(damaged, whole.replace(b"0.", b"0.0"))
    done = typed("promote", new, "--registry", place)
    assert done.exit_code == 3
    assert "The model in use is damaged, so nothing can be compared with it: " in done.stderr
    write_bytes(damaged, whole)
    assert typed("promote", new, "--registry", place).exit_code == 9  # the new one is worse


@pytest.mark.parametrize("file", ["manifest.json", "evaluation/rank/metrics.json", "model/model.safetensors"])
def test_a_damaged_model_is_repaired_by_promoting_its_run_again(place, tmp_path, file):
    runs = [write_finished(tmp_path / name, gain=gain) for name, gain in (("first", 0.0), ("second", 0.1))]
    for run in runs:
        typed("promote", run, "--registry", place)
    registry = Registry(place)
    for run, change in zip(runs, registry.history(), strict=True):
        damaged = join(registry.folder(change.model), file)
        whole = read_bytes(damaged)
        write_bytes(damaged, b"{")
        done = typed("promote", run, "--registry", place, *(["--force", "again"] if run == runs[0] else []))
        assert (done.exit_code, read_bytes(damaged)) == (0, whole), done.stderr


def test_of_two_promotions_the_one_that_was_overtaken_is_refused(place, tmp_path, monkeypatch):
    first, slow, fast = (write_finished(tmp_path / name, gain=0.1 * i) for i, name in enumerate("abc"))
    registry = Registry(place)
    promote.of_run(first, registry)

    def overtaken(*judged):
        promote.of_run(fast, registry, force="meanwhile")
        return decide(*judged)

    monkeypatch.setattr(promote, "decide", overtaken)
    with pytest.raises(ConflictError, match="Another model was promoted"):
        promote.of_run(slow, registry)
    assert [change.note for change in registry.history()][1:] == ["promoted without a comparison: meanwhile"]


def test_measures_are_checked_although_the_first_model_needs_none(tmp_path):
    run = write_finished(tmp_path / "run")
    done = typed("promote", run, "--registry", tmp_path / "registry", "--measure", "rank/foo")
    assert done.exit_code == 2
    assert "was not judged by 'rank/foo'. It was judged by rank/AP" in done.stderr
    assert Registry(tmp_path / "registry").current() is None


def test_a_model_without_a_head_in_use_is_not_promoted(place, tmp_path):
    typed("promote", write_finished(tmp_path / "both", tasks=["rank", "sim"]), "--registry", place)
    less = write_finished(tmp_path / "less", tasks=["sim"], gain=0.1)
    done = typed("promote", less, "--registry", place)
    assert (done.exit_code, Registry(place).history()[1:]) == (9, [])
    assert "is not promoted: it has no head rank, which the model in use has: train with that task too" in done.stderr
    assert typed("promote", less, "--registry", place, "--force", "nobody ranks").exit_code == 0


def test_what_decides_is_the_main_measure_of_the_model_in_use(tmp_path):
    """Not that of the new run, whose tasks may have another order."""
    typed("promote", write_finished(tmp_path / "first", tasks=["rank", "sim"]), "--registry", tmp_path / "r")
    other = write_finished(tmp_path / "other", tasks=["sim", "rank"], gain=-0.1)
    done = typed("promote", other, "--registry", tmp_path / "r")
    assert done.exit_code == 9
    assert "may be worse by more than 0.02: rank/AP" in done.stderr
    only = write_finished(tmp_path / "only", tasks=["sim", "rank"], gain=0.1)
    shutil.rmtree(only / "evaluation" / "rank")
    done = typed("promote", only, "--registry", tmp_path / "r")
    assert (done.exit_code, len(done.stderr.splitlines())) == (2, 1)
    assert "The new model was not judged by 'rank/AP'. It was judged by sim/MSE" in done.stderr


def test_the_first_model_must_be_judged_by_what_later_ones_will_be_compared_by(tmp_path):
    run = write_finished(tmp_path / "run", tasks=["rank", "sim"])
    shutil.rmtree(run / "evaluation" / "rank")
    done = typed("promote", run, "--registry", tmp_path / "r")
    assert done.exit_code == 3
    assert "rank, the first task of the new model, was not judged. Judge it, or name other measures." in done.stderr
    assert not (tmp_path / "r").exists()


def test_a_larger_error_than_the_baselines_is_worse_too(place, tmp_path):
    run = write_finished(tmp_path / "run", tasks=("rank", "sim"))
    file = run / "evaluation" / "sim" / "metrics.json"
    known = {"values": {"MSE": 2.0}, "baseline": {"MSE": 1.0}, "baseline_name": "training mean"}
    for gain, code in (([0.5, 1.5], 9), ([-1.5, -0.5], 0)):
        write_json(file, read_json(file) | known | {"intervals": {"MSE": {"gain": gain}}})
        assert typed("promote", run, "--registry", place, "--measure", "sim/MSE", "--margin", "3").exit_code == code


@pytest.mark.parametrize("gain", [[-0.2, -0.1], [-0.2, 0.1], None])
def test_a_model_worse_than_its_baseline_is_promoted_for_a_reason_only(place, tmp_path, gain):
    for number in range(2):  # the first one, and one that is compared
        run = write_finished(tmp_path / f"run{number}", gain=number / 10)
        file = run / "evaluation" / "rank" / "metrics.json"
        known = {"values": {"AP": 0.3}, "baseline": {"AP": 0.45}, "baseline_name": "first stage"}
        write_json(file, read_json(file) | known | {"intervals": {"AP": {"gain": gain}}})
        done = typed("promote", run, "--registry", place)
        if gain == [-0.2, -0.1]:
            assert done.exit_code == 9
            assert "worse than its baseline: rank/AP 0.3000, first stage 0.4500, 95 % interval" in done.stderr
            assert typed("promote", run, "--registry", place, "--force", "for a trial").exit_code == 0
        else:
            assert done.exit_code == 0


def test_heads_that_were_judged_elsewhere_are_promoted_with_their_model(place, tmp_path):
    """As those of a pipeline, whose steps leave them in folders of their own."""
    run = write_finished(tmp_path / "run", tasks=("rank", "sim"))
    for head in ("rank", "sim"):
        (tmp_path / f"result-{head}").mkdir()
        shutil.move(run / "evaluation" / head, tmp_path / f"result-{head}" / head)
    shutil.rmtree(run / "evaluation")
    results = [word for head in ("rank", "sim") for word in ("--evaluation", tmp_path / f"result-{head}")]
    assert typed("promote", run, "--registry", place).exit_code == 3
    twice = typed("promote", run, "--registry", place, *results, *results)
    assert (twice.exit_code, "rank was judged in several of these folders" in twice.stderr) == (3, True)
    missing = typed("promote", run, "--registry", place, "--evaluation", tmp_path / "nowhere")
    assert (missing.exit_code, f"There is no folder {tmp_path / 'nowhere'}" in missing.stderr) == (3, True)
    assert typed("promote", run, "--registry", place, *results, "--source", "gs://bucket/run").exit_code == 0
    (change,) = Registry(place).history()
    assert change.source.run == "gs://bucket/run"


def test_the_same_training_again_gives_the_same_model(data_dir, tmp_path, capsys):
    for name, more in (("first", []), ("again", ["force=true", f"training.checkpoint_dir={tmp_path / 'elsewhere'}"])):
        words = ["tasks=[msm_ner]", "debug=limit", "training.epochs=1", f"data_dir={data_dir}", *more]
        train.run(compose_config([*words, f"output_dir={tmp_path / name}"], trusted=True))
        promote.of_run(tmp_path / name, Registry(tmp_path / "registry"))
    assert "is in use already" in capsys.readouterr().err
    assert str(tmp_path) not in (tmp_path / "first" / "model" / "config.json").read_text()


def test_a_model_in_whose_folder_another_run_has_begun_is_not_that_runs(tmp_path):
    run = write_finished(tmp_path / "run")
    (run / "metrics.json").unlink()
    done = typed("promote", run, "--registry", tmp_path / "r", "--force", "it is good")
    assert done.exit_code == 3
    assert "run is not the folder of a finished run: a run has begun there" in done.stderr
    assert not (tmp_path / "r").exists()


def test_a_reason_puts_a_worse_model_in_use(tmp_path):
    for name, gain, more in (("first", 0.1, []), ("worse", 0.0, ["--force", "half as large"])):
        done = typed("promote", write_finished(tmp_path / name, gain=gain), "--registry", tmp_path / "r", *more)
        assert done.exit_code == 0
    assert Registry(tmp_path / "r").history()[-1].note == "promoted without a comparison: half as large"


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (["promote", "nowhere", "--registry", "r"], 3, "nowhere is not the folder of a finished run: there is no"),
        (["promote", "run", "--registry", "ftp://x"], 4, "expected a local path or gs://"),
        (["promote", "run", "--registry", "r", "--margin", "-1"], 2, "margin is -1.0: expected a finite number"),
        (
            ["promote", "run", "--registry", "r", "--margin", "5"],
            2,
            "margin is 5, but rank/AP is at most 1: expected at",
        ),
        (["promote", "run", "--registry", "r", "--measure", "rank/Judged@10"], 2, "does not say which model is better"),
        (["promote", "run", "--registry", "r", "--margin", "nan"], 2, "margin is nan: expected a finite number"),
        (["promote", "run", "--registry", "r", "--margin", "inf"], 2, "margin is inf: expected a finite number"),
        (["promote", "run", "--registry", "r", "--measure", "nope"], 2, "was not judged by 'nope'"),
        (["rollback", "--registry", "r"], 2, "first model"),
        (["models", "--registry", "r", "--yes"], 2, "--yes is for --prune"),
        (["models", "--registry", "r", "--prune", "0"], 2, "--prune is 0, expected at least 1"),
    ],
)
def test_a_mistake_gives_one_line(tmp_path, monkeypatch, words, code, complaint):
    monkeypatch.chdir(tmp_path)
    write_finished(tmp_path / "run", gain=0.1)
    assert typed("promote", write_finished(tmp_path / "first"), "--registry", "r").exit_code == 0
    done = typed(*words)
    assert done.exit_code == code
    assert len(done.stderr.splitlines()) == 1
    assert complaint in done.stderr
