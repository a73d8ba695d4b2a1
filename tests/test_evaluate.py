"""Judging heads on any number of test sets."""

import copy
import shutil

import pytest

from mtlrank import compare, evaluate, predict, prepare, rank
from mtlrank.building.model import build_body, build_model
from mtlrank.composing.compose import compose_config
from mtlrank.composing.selection import select_tasks
from mtlrank.errors import ConfigError, DataError
from mtlrank.storage import MANIFEST, new_folder, read_json, write_json, write_manifest
from mtlrank.trec import read_run
from tests.commands import typed
from tests.saved_models import save_random, settings


def test_each_test_set_has_a_run_of_its_own_queries(data_dir, tmp_path, capsys):
    words = [
        f"data_dir={data_dir}",
        "tasks=[trec2019]",
        "+datamodule.dataset.datasets.trec2019.more_tests={held: mtlrank-embedded/val}",
        "datamodule.dataset.datasets.trec2019.val=null",
        "datamodule.dataset.datasets.trec2019.task.measures=[nDCG@10,AP]",
    ]
    config = select_tasks(compose_config(words, trusted=True))
    datasets = prepare.run(config)
    model = build_model(config, build_body(config), datasets)
    metrics = evaluate.judge_all(model, datasets, tmp_path, evaluate.Scoring(batch_size=128), "0123")
    assert {key.split("/")[0] for key in metrics} == {"test", "test@held"}
    assert capsys.readouterr().err.count("AP of trec2019 counts documents from grade 1 as relevant") == 1

    sizes = {}
    for folder, split in (("trec2019", "test"), ("trec2019@held", "test@held")):
        judged = {line.split("\t")[0] for line in (tmp_path / folder / "per_query.tsv").read_text().splitlines()[1:]}
        ranked = {(doc.query_id, doc.doc_id) for doc in read_run(tmp_path / folder / "run.trec")}
        assert ranked == set(datasets["trec2019"].split(split).ids)
        assert {query_id for query_id, _ in ranked} == judged
        assert read_json(tmp_path / folder / "metrics.json")["split"] == split
        sizes[split] = len(judged)
    assert sizes == {"test": 100, "test@held": 50}


def test_a_task_without_the_split_is_left_out_unless_it_is_asked_for(config, datasets, data_dir, tmp_path, capsys):
    """As in training, which learns from such a task and does not judge it."""
    saved = copy.deepcopy(config)
    saved["datamodule"]["dataset"]["datasets"]["msm_ner"]["test"] = None
    save_random(tmp_path / "model", saved, datasets)
    words = {"model_dir": tmp_path / "model", "data_dir": data_dir, "output_dir": tmp_path / "judged"}
    metrics = evaluate.run(settings("evaluate", **words))
    assert {key.split("/")[1] for key in metrics} == set(datasets) - {"msm_ner"}
    assert "msm_ner has no test split and is not judged" in capsys.readouterr().err
    with pytest.raises(DataError, match="msm_ner.* has no split 'test'"):
        evaluate.run(settings("evaluate", **words, tasks="[msm_ner,msm_sem_sim]"))
    with pytest.raises(ConfigError, match="trec2019 is a ranking: its training documents are a sample"):
        evaluate.run(settings("evaluate", **words, tasks="[trec2019]", split="train"))


def test_an_unknown_split_leaves_no_folder(config, datasets, data_dir, tmp_path):
    save_random(tmp_path / "model", config, datasets)
    with pytest.raises(DataError, match="has no split 'nope'"):
        evaluate.run(settings("evaluate", model_dir=tmp_path / "model", split="nope", data_dir=data_dir))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_the_test_sampler_is_asked_for_its_order(config, datasets, data_dir, tmp_path):
    """Either of the two that take every sample once gives the same measures; others are refused."""
    found = []
    for name in ("Sequential", "LongestFirst", "Uniform"):
        saved = copy.deepcopy(config)
        saved["datamodule"]["test_sampler"]["_target_"] = f"mtlrank.datamodule.sampler.{name}"
        save_random(tmp_path / name / "model", saved, datasets)
        words = settings("evaluate", model_dir=tmp_path / name / "model", tasks="[msm_ner]", data_dir=data_dir)
        if name == "Uniform":
            with pytest.raises(ConfigError, match="test_sampler is Uniform, but judging takes every sample once"):
                evaluate.run(words)
        else:
            found.append(evaluate.run(words))
    assert found[0] == pytest.approx(found[1], abs=1e-3)


def test_the_folder_of_a_run_stands_for_its_model(config, datasets, data_dir, tmp_path, capsys):
    save_random(tmp_path / "run" / "model", config, datasets)
    wanted = settings("evaluate", model_dir=tmp_path / "run", tasks="[msm_ner]")
    metrics = evaluate.run(wanted, {"msm_ner": data_dir / "msm_ner"})
    assert set(metrics) == {"test/msm_ner/Accuracy", "test/msm_ner/MacroF1"}
    printed = capsys.readouterr().out.replace("\n", "")
    assert f"results: {tmp_path / 'run' / 'evaluation-test'}" in printed
    assert "Invented data (the embedded collection), whatever it is called: msm_ner." in printed  # what was judged


def test_results_of_other_models_are_neither_replaced_nor_mixed_with_new_ones(config, datasets, data_dir, tmp_path):
    def judge(run, task, output):
        words = settings("evaluate", model_dir=tmp_path / run, tasks=f"[{task}]", output_dir=tmp_path / output)
        return evaluate.run(words, {task: data_dir / task})

    save_random(tmp_path / "run" / "model", config, datasets)
    save_random(tmp_path / "other" / "model", {**config, "seed": 7}, datasets)
    judge("run", "msm_ner", "results")
    judge("run", "msm_coref", "results")
    with pytest.raises(ConfigError, match="results holds the results of another run"):
        judge("other", "msm_ner", "results")

    words = {"tasks": "[msm_ner]", "output_dir": tmp_path / "results", "split": "val"}
    with pytest.raises(
        ConfigError, match=r"results holds results of the split test, not val\. Choose another output_dir"
    ):
        evaluate.run(
            settings("evaluate", model_dir=tmp_path / "run" / "model", **words), {"msm_ner": data_dir / "msm_ner"}
        )
    with pytest.raises(ConfigError, match=r"run/model is the folder of a run or of a model"):
        judge("run", "msm_ner", "run/model")

    before = read_json(tmp_path / "results" / "msm_ner" / "metrics.json")
    shutil.rmtree(tmp_path / "run" / "model")
    save_random(tmp_path / "run" / "model", config, datasets, spread=2.0)  # the same run with other weights
    with pytest.raises(ConfigError, match="msm_coref is a result of other weights"):
        judge("run", "msm_ner", "results")
    assert read_json(tmp_path / "results" / "msm_ner" / "metrics.json") == before
    shutil.rmtree(tmp_path / "results" / "msm_coref")
    judge("run", "msm_ner", "results")
    assert read_json(tmp_path / "results" / "msm_ner" / "metrics.json")["weights"] != before["weights"]


def test_a_head_is_judged_on_a_collection_that_it_was_not_trained_with(config, datasets, data_dir, tmp_path, capsys):
    """The same queries under another name: what the head's own test set gives, at another relevance level."""
    own = settings("evaluate", model_dir=save_random(tmp_path / "run" / "model", config, datasets), tasks="[trec2019]")
    known = evaluate.run(own, {"trec2019": data_dir / "trec2019"})
    words = {"model_dir": tmp_path / "run", "head": "trec2019", "data_dir": tmp_path / "data"}
    words |= {"on": "{again: mtlrank-embedded/test, held: mtlrank-embedded/val}"}
    capsys.readouterr()
    found = evaluate.run(settings("evaluate", **words, relevance_level=1))
    assert "Invented" not in capsys.readouterr().out  # `on` names a collection of the user's choice
    assert found["test@again/trec2019/nDCG@10"] == pytest.approx(known["test/trec2019/nDCG@10"], abs=1e-6)
    assert {key.split("/", 2)[2] for key in found} == {"nDCG@10", "AP(rel=1)", "RR(rel=1)@10", "Judged@10"}
    assert {key.split("/")[0] for key in found} == {"test@again", "test@held"}

    folder = tmp_path / "run" / "evaluation-test"
    assert read_json(folder / "trec2019@again" / "metrics.json")["relevance_level"] == 1
    rows = compare.run([f"x={folder}"], measures=["nDCG@10"], resamples=100)
    assert {row.head: row.num_units for row in rows} == {"trec2019": 100, "trec2019@again": 100, "trec2019@held": 50}

    capsys.readouterr()
    with pytest.raises(
        ConfigError, match="with other max_passages or num_candidates. Remove it, or choose another output_dir"
    ):
        evaluate.run(settings("evaluate", **words, num_candidates=3))
    words["output_dir"] = tmp_path / "fewer"
    fewer = evaluate.run(settings("evaluate", **words, num_candidates=3, measures='["P@5"]'))
    assert set(fewer) == {"test@again/trec2019/P@5", "test@held/trec2019/P@5"}
    assert read_json(tmp_path / "fewer" / "trec2019@held" / "metrics.json")["max_candidates"] == 3
    evaluate.run(settings("evaluate", **words, num_candidates=3))
    with pytest.raises(DataError, match="the first stage's .* differs .*, so judgements or candidates differ"):
        compare.run([str(folder), str(tmp_path / "fewer")], resamples=100)  # not: the same run, named twice
    assert len(list((tmp_path / "data").glob("trec2019-*"))) == 4  # two of each: measures are no part of the data


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ({"relevance_level": 1}, "relevance_level is 1, but it belongs to on="),
        (
            {"on": "{a: mtlrank-embedded/val}", "tasks": "[trec2019]"},
            r"tasks is \['trec2019'\], but on judges one head",
        ),
        ({"on": "{a: mtlrank-embedded/val}", "split": "val"}, "split is 'val', but what on names are test sets"),
        ({"on": "{a: 0.1}"}, r"on\.a is 0\.1, expected an id of ir_datasets or files, as in beir/scifact/test"),
        ({"on": "{a: mtlrank-embedded/val}", "head": "trec"}, "no head 'trec'. Did you mean 'trec2019'"),
        ({"on": "{a: mtlrank-embedded/val}", "head": "msm_bm25"}, "msm_bm25 is not judged as a ranking"),
    ],
)
def test_a_slip_in_what_to_judge_on(config, datasets, tmp_path, words, complaint):
    save_random(tmp_path / "model", config, datasets)
    with pytest.raises(ConfigError, match=complaint):
        evaluate.run(settings("evaluate", model_dir=tmp_path / "model", **words))


def test_an_evaluation_is_compared_wherever_it_lies(config, datasets, data_dir, tmp_path):
    """Also without the model, as that of a registry lies in another place."""
    for name, seed, lr in (("a1", 1, 1e-3), ("a2", 2, 1e-3), ("b", 1, 1e-4)):
        saved = copy.deepcopy(config)
        saved["seed"], saved["loop"]["optimizer"]["lr"] = seed, lr
        save_random(tmp_path / "model", saved, datasets)
        words = settings("evaluate", model_dir=tmp_path / "model", tasks="[trec2019]", output_dir=tmp_path / name)
        evaluate.run(words, {"trec2019": data_dir / "trec2019"})
        shutil.rmtree(tmp_path / "model")
    rows = compare.run([str(tmp_path / name) for name in ("a1", "a2", "b")], resamples=100)
    assert {(row.baseline, row.baseline_runs, row.system) for row in rows} == {
        ("lr=0.001", 2, "lr=0.0001"),
        ("first stage", 1, "lr=0.001"),
        ("first stage", 1, "lr=0.0001"),
    }
    shutil.copytree(tmp_path / "b", tmp_path / "b2")
    with pytest.raises(ConfigError, match="have the same config and seed 1, so they count once"):
        compare.run([str(tmp_path / name) for name in ("a1", "b", "b2")])


def test_evaluations_of_a_runs_heads_are_one_when_they_lie_together(config, datasets, data_dir, tmp_path):
    """A pipeline judges each head in a step of its own."""
    for name, seed in (("a", 1), ("b", 2)):
        model = save_random(tmp_path / "model", {**config, "seed": seed}, datasets, spread=seed)
        for head in ("trec2019", "msm_ner"):
            step = tmp_path / f"{name}-{head}"
            words = settings("evaluate", model_dir=model, tasks=f"[{head}]", output_dir=step)
            evaluate.run(words, {head: data_dir / head})
            shutil.copytree(step, tmp_path / name, dirs_exist_ok=True)
        shutil.rmtree(model)
    rows = compare.run([f"one={tmp_path / 'a'}", f"two={tmp_path / 'b'}"], resamples=100, first_stage=False)
    assert {(row.head, row.system, row.baseline) for row in rows} == {
        (h, "two", "one") for h in ("trec2019", "msm_ner")
    }


@pytest.mark.filterwarnings("ignore")  # Lightning's own
def test_prepared_data_is_enough_where_its_sources_are_not(tmp_path, capsys):
    """As on another machine. If sources are there and others than in training, they are prepared."""
    lines = [f"{number % 5}\tsilent harbour {number}\tgarden {number}\n" for number in range(20)]
    (tmp_path / "mine.tsv").write_text("".join(lines))
    config = tmp_path / "conf" / "datamodule" / "dataset" / "mine.yaml"
    config.parent.mkdir(parents=True)
    config.write_text(
        "defaults:\n  - /task@task: regression\n  - /datamodule/preprocessor@preprocessor: pair\n"
        "_target_: mtlrank.datamodule.dataset.SentencePairs\nname: mine\nscore_column: 0\n"
        "train: mine.tsv\nval: mine.tsv\ntest: mine.tsv\n"
    )
    trained = ["--config-dir", "conf", "datamodule/dataset=mine", "training.max_steps=1", "output_dir=run"]
    assert typed(tmp_path, "train", *trained) == 0
    shutil.move(tmp_path / "data", tmp_path / "copied")
    (tmp_path / "mine.tsv").unlink()
    assert typed(tmp_path, "evaluate", "model_dir=run", "data_dir=copied", "output_dir=again") == 0
    told = "mine: its sources are not here, so it is judged as it was prepared for training"
    assert told in capsys.readouterr().err
    predictions = [tmp_path / where / "mine" / "predictions.tsv" for where in ("run/evaluation", "again")]
    assert predictions[0].read_bytes() == predictions[1].read_bytes()
    assert len(list((tmp_path / "copied").iterdir())) == 1

    assert typed(tmp_path, "evaluate", "model_dir=run", "output_dir=nowhere") == 3  # in `data`, there is none
    assert "'mine.tsv' does not exist" in capsys.readouterr().err
    (tmp_path / "mine.tsv").write_text("".join(lines[:15]))
    assert typed(tmp_path, "evaluate", "model_dir=run", "data_dir=copied", "output_dir=other") == 0
    said = capsys.readouterr().err
    assert told not in said
    assert "mine: what it is made from has changed since the run was trained, so it is judged on other data" in said
    assert len((tmp_path / "other" / "mine" / "predictions.tsv").read_text().splitlines()) == 1 + 15


NUMBERS = "defaults:\n  - /task@task: regression\n"
CLASSES = "defaults:\n  - /task@task: classes\n"
PAIRS = (
    "  - /datamodule/preprocessor@preprocessor: pair\n_target_: mtlrank.datamodule.dataset.SentencePairs\nname: mine\n"
    "score_column: 0\ntrain: train.tsv\nval: test.tsv\ntest: test.tsv\n"
)


def trained_on(tmp_path, task, labels):
    """A run that has learnt a few pairs with these labels, and is judged on others."""
    config = tmp_path / "conf" / "datamodule" / "dataset" / "mine.yaml"
    config.parent.mkdir(parents=True)
    config.write_text(task + PAIRS)
    for name, start in (("train", 0), ("test", 20)):
        write_pairs(tmp_path / f"{name}.tsv", labels, start)
    words = ["--config-dir", "conf", "datamodule/dataset=mine", "training.max_steps=1", "output_dir=run"]
    assert typed(tmp_path, "train", *words) == 0


def write_pairs(file, labels, start=0):
    numbers = range(start, start + 20)
    file.write_text("".join(f"{labels[n % len(labels)]}\tsilent harbour {n}\tgarden {n}\n" for n in numbers))


@pytest.mark.filterwarnings("ignore")  # Lightning's own
def test_numbers_are_predicted_in_the_unit_that_the_model_has_learnt(tmp_path):
    """Also if other training data have come since; the baseline is theirs no more."""
    trained_on(tmp_path, NUMBERS, [1, 2, 4])
    write_pairs(tmp_path / "train.tsv", [100, 200])
    assert typed(tmp_path, "evaluate", "model_dir=run", "output_dir=again") == 0
    folders = [tmp_path / where / "mine" for where in ("run/evaluation", "again")]
    assert len({(folder / "predictions.tsv").read_text() for folder in folders}) == 1
    assert len({read_json(folder / "metrics.json")["baseline"]["MSE"] for folder in folders}) == 1


@pytest.mark.filterwarnings("ignore")  # Lightning's own
@pytest.mark.parametrize("labels", [["no", "yes", "perhaps"], ["a", "b"]])
def test_classes_that_the_model_has_not_learnt_are_refused(tmp_path, labels, capsys):
    trained_on(tmp_path, CLASSES, ["no", "yes"])
    write_pairs(tmp_path / "train.tsv", labels)
    write_pairs(tmp_path / "test.tsv", labels, 20)
    capsys.readouterr()
    assert typed(tmp_path, "evaluate", "model_dir=run", "output_dir=again") == 2
    found = capsys.readouterr().err
    there = f"the training data that are there now have {', '.join(sorted(labels))}: expected the same"
    assert f"mine: the model learnt the classes no, yes, and {there}" in found
    assert not (tmp_path / "again" / "mine").exists()


def test_a_saved_model_that_names_code_anywhere_is_not_trusted(config, datasets, tmp_path):
    """Also where samplers are named, which evaluation builds too."""
    sampler = {"_target_": "pathlib.Path.write_text", "_args_": [str(tmp_path / "evil"), "x"]}
    saved = {**config, "datamodule": {**config["datamodule"], "test_sampler": sampler}}
    save_random(tmp_path / "model", config, datasets)
    with new_folder(tmp_path / "evil_model") as folder:
        shutil.copytree(tmp_path / "model", folder, dirs_exist_ok=True)
        write_json(folder / "config.json", saved, sort_keys=False)
        write_manifest(folder, {k: v for k, v in read_json(folder / MANIFEST).items() if k != "files"})
    with pytest.raises(ConfigError, match="'pathlib.Path.write_text' is not allowed"):
        evaluate.run(settings("evaluate", model_dir=tmp_path / "evil_model"))
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("step", [evaluate, rank, predict])
def test_a_model_must_be_named(step, tmp_path):
    words = {"model_dir": None} | ({"input": "x.tsv", "output": tmp_path / "y.jsonl"} if step is not evaluate else {})
    with pytest.raises(ConfigError, match="model_dir has no value"):
        step.run(settings(step.__name__.rpartition(".")[2], **words))
