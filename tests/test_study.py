"""A study: mixtures and single tasks, several seeds, what is finished is not run again."""

import csv
import json

import ir_measures
import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from mtlrank import study
from mtlrank.building.dataset import has_split
from mtlrank.comparing.systems import read_system
from mtlrank.composing.compose import compose_config, resolve
from mtlrank.composing.selection import select_tasks
from mtlrank.errors import ConfigError, DataError, StorageError
from mtlrank.evaluation.judged_head import read_head
from mtlrank.storage import read_json
from mtlrank.trec import read_qrels, read_run
from tests.tiny_collection import write

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own
SHORT = [
    "tasks=[msm_sem_sim,msm_ner]",
    "training.epochs=1",
    "training.max_val_queries=10",
    "datamodule.train_sampler.limits={msm_sem_sim: 64, msm_ner: 64}",
    "study.resamples=500",
]


def vary_with(*words):
    """As the command line's `start_variants` does."""
    with initialize_config_module("mtlrank.conf", version_base="1.3"):
        composed = compose("study", overrides=list(words))

    def vary(changes):
        config = composed.copy()
        for key, value in changes.items():
            OmegaConf.update(config, key, value)
        return resolve(config, trusted=True, name="study")

    return vary


def run(data_dir, output, *words):
    return study.run(vary_with(*SHORT, f"data_dir={data_dir}", f"output_dir={output}", *words))


def test_a_study_compares_each_head_with_its_single_task_and_goes_on(data_dir, tmp_path, capsys):
    rows = run(data_dir, tmp_path, "study.seeds=[1]")
    both = "msm_sem_sim+msm_ner"
    assert [(row.head, row.measure, row.baseline, row.system) for row in rows] == [
        ("msm_sem_sim", "Spearman", "msm_sem_sim", both),
        ("msm_ner", "Accuracy", "msm_ner", both),
    ]
    finished = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/seed-1/metrics.json")}
    assert {path.parent.parent.name for path in finished} == {"msm_sem_sim", "msm_ner", both}
    assert len(set(tmp_path.glob("*/seed-1/checkpoints/step-*/state.pt"))) >= 3
    capsys.readouterr()

    again = run(data_dir, tmp_path, "study.seeds=[1,2]", "study.heads=[msm_ner]")
    told = capsys.readouterr()
    assert "run 1/4: msm_ner, seed 1" in told.err
    assert told.err.count("already finished") == 2
    assert all(path.stat().st_mtime_ns == time for path, time in finished.items())
    assert [(row.head, row.baseline_runs, row.system_runs) for row in again] == [("msm_ner", 2, 2)]
    assert "Of 1 comparison of a head in a mixture with the same task by itself" in told.out
    with (tmp_path / "transfer" / "comparison.csv").open() as file:
        (line,) = csv.DictReader(file)
    assert float(line["difference"]) == pytest.approx(float(line["system_value"]) - float(line["baseline_value"]))
    page = (tmp_path / "transfer" / "transfer.html").read_text()
    assert both in page
    assert page.count("<svg") == 2
    steps = read_json(tmp_path / both / "seed-1" / "about.json")["steps"]
    assert f"<td>{both}</td><td>2</td><td>{steps}</td>" in page

    of_run = tmp_path / both / "seed-2" / "run.json"
    instead = r".*\(In a study, force=true would replace all runs: remove \S+seed-2 instead, and"
    foreign = json.dumps({**read_json(of_run), "seed": 3})
    for content, error, complaint in (
        ("{", DataError, "is damaged"),
        (foreign, ConfigError, "a run of another config"),
    ):
        of_run.write_text(content)
        capsys.readouterr()
        with pytest.raises(error, match=complaint + instead):
            run(data_dir, tmp_path, "study.seeds=[1,2]", "study.heads=[msm_ner]")
        assert "run 1/4" not in capsys.readouterr().err


@pytest.mark.slow
def test_shards_train_each_run_once_and_the_command_without_them_compares(data_dir, tmp_path, capsys):
    words = ["study.seeds=[1]", "study.heads=[msm_ner]"]
    trained = []
    for shard in ("2/2", "1/2"):
        assert run(data_dir, tmp_path, *words, f"study.shard={shard}") == []
        assert "When all shards have ended, the same command without study.shard compares" in capsys.readouterr().err
        trained.append({path.parent.parent.name for path in tmp_path.glob("*/seed-1/metrics.json")})
    assert trained == [{"msm_sem_sim+msm_ner"}, {"msm_sem_sim+msm_ner", "msm_ner"}]
    assert not (tmp_path / "transfer").exists()
    (row,) = run(data_dir, tmp_path, *words)
    assert capsys.readouterr().err.count("already finished") == 2
    assert (row.head, row.baseline_runs, row.system_runs) == ("msm_ner", 1, 1)


def test_seeds_and_what_is_derived_from_them_change_together():
    config = vary_with(*SHORT)({"seed": 7})
    assert (config["seed"], config["datamodule"]["seed"]) == (7, 7)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("study.seeds=[1,1]", "expected a list of different seeds"),
        ("study.seeds=[1,-5]", "expected a list of different seeds"),
        ("study.seeds=3", "expected a list of different seeds"),
        ("study.mixtures=[[msm_ner,msm_nr]]", "study.mixtures names unknown tasks: msm_nr. Did you mean 'msm_ner'"),
        ("study.mixtures=[[msm_ner,5]]", "expected null or lists of tasks"),
        ("study.mixtures=[[msm_ner,msm_ner]]", "lists of tasks, each once"),
        ("training.monitor=val/msm_ner/Acuracy", "Did you mean 'val/msm_ner/Accuracy'"),
        ("study.mixtures=[msm_ner]", "expected null or lists of tasks"),
        ("study.mixtures=[[msm_ner]]", "expected one of several tasks"),
        ("study.heads=[msm_ne]", "study.heads names unknown heads: msm_ne. Did you mean 'msm_ner'"),
        ("study.measures=[accuracy]", "study.measures names unknown measures: accuracy. Did you mean 'Accuracy'"),
        ("study.margin=-1", "study.margin is -1, expected a finite number above 0"),
        ("study.resamples=0", "study.resamples is 0, expected a whole number, at least 1"),
        ("datamodule.dataset.datasets.msm_ner.name=msm_sem_sim", "Two datasets share the name msm_sem_sim"),
        ("study.shard=0/2", "The shard is '0/2', expected i/n with i from 1 to n"),
        ("trainer.devices=2", "Each run of a study has one device"),
        ("test=false", "compares test results"),
        ("prepare.shard=1/2", "prepare.shard is for `mtlrank prepare`"),
        ("+datamodule.train_sampler.limits.msm_nr=64", "unknown datasets: msm_nr. Did you mean 'msm_ner'"),
    ],
)
def test_studies_that_cannot_be_are_refused_before_anything_runs(data_dir, tmp_path, word, message):
    with pytest.raises(ConfigError, match=message):
        run(data_dir, tmp_path, word)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model/heads@model.heads.msm_ner=cls"], "Head 'msm_ner' pools no spans"),
        (
            ["tasks=[trec2019,msm_sem_sim]", "model/heads/pooler@model.heads.msm_sem_sim.pooler=span_average"],
            "Head 'msm_sem_sim' pools 1 span",
        ),
        (["loop/loss=static_weights", "loop.loss.weights={msm_ner: -1}"], "msm_ner"),
    ],
)
def test_a_mistake_in_a_later_run_is_found_before_the_first_one(data_dir, tmp_path, words, message):
    with pytest.raises(ConfigError, match=message):
        run(data_dir, tmp_path, "study.seeds=[1]", *words)
    assert not list(tmp_path.iterdir())


PROBABILITIES = "datamodule/sampler@datamodule.train_sampler=probabilities"


def test_a_sampler_that_a_single_task_cannot_have_is_refused_before_the_first_run(data_dir, tmp_path):
    given = "datamodule.train_sampler.probabilities={msm_sem_sim: 1, msm_ner: 0}"
    words = ["tasks=[msm_sem_sim,msm_ner]", PROBABILITIES, given, f"data_dir={data_dir}", f"output_dir={tmp_path}"]
    told = r"not all 0.*\(In the single-task run of msm_ner. study.heads chooses the tasks that have one.\)"
    with pytest.raises(ConfigError, match=told):
        study.run(vary_with(*words))
    assert not list(tmp_path.iterdir())


def test_checkpoints_of_finished_runs_can_be_left_out(data_dir, tmp_path):
    run(data_dir, tmp_path, "study.seeds=[1]", "study.keep_checkpoints=false", "study.heads=[msm_ner]")
    assert len(list(tmp_path.glob("*/seed-1/model/model.safetensors"))) == 2
    assert not list(tmp_path.glob("*/seed-1/checkpoints/*/state.pt"))


def test_data_that_is_wrong_is_found_before_the_first_run(data_dir, tmp_path):
    bad = tmp_path / "bad.tsv"
    bad.write_text("query\ttext\tnot a number\n")
    words = [f"datamodule.dataset.datasets.msm_ner.train={bad}", "study.seeds=[1]"]
    with pytest.raises(DataError, match="bad"):
        run(data_dir, tmp_path / "study", *words)
    assert not list((tmp_path / "study").iterdir())


def test_a_study_in_a_bucket_is_refused(data_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StorageError, match="expected a local path"):
        run(data_dir, "gs://bucket/study")
    assert not list(tmp_path.iterdir())


def test_what_samplers_and_losses_say_of_tasks_that_are_left_out_goes_with_them():
    words = [
        "tasks=[msm_ner]",
        "datamodule.train_sampler.limits={msm_ner: 5, trec2019: 7}",
        "loop/loss=static_weights",
        "loop.loss.weights={trec2019: 2.0}",
    ]
    config = select_tasks(compose_config(words, trusted=True))
    assert config["datamodule"]["train_sampler"]["limits"] == {"msm_ner": 5}
    assert config["loop"]["loss"]["weights"] == {}


def test_tasks_without_a_split_of_their_own_are_learnt_but_not_compared(data_dir, tmp_path, capsys):
    words = [*SHORT, "datamodule.dataset.datasets.msm_ner.val=null"]
    config = vary_with(*words, f"data_dir={data_dir}", f"output_dir={tmp_path}")({})
    assert {run.mixture for run in study.plan(config)} == {("msm_sem_sim",), ("msm_sem_sim", "msm_ner")}
    assert "trained with others, but not compared: msm_ner" in capsys.readouterr().err


def test_a_task_in_no_mixture_is_said_not_to_be_trained(data_dir, tmp_path, capsys):
    words = ["tasks=[msm_sem_sim,msm_ner,msm_coref]", "study.mixtures=[[msm_sem_sim,msm_ner]]"]
    config = vary_with(*words, f"data_dir={data_dir}", f"output_dir={tmp_path}")({})
    assert {task for run in study.plan(config) for task in run.mixture} == {"msm_sem_sim", "msm_ner"}
    assert capsys.readouterr().err == "mtlrank: in no mixture, so not trained: msm_coref\n"


def test_measures_that_a_task_of_ones_own_names_in_its_class_are_not_checked():
    own = "~datamodule.dataset.datasets.msm_sem_sim.task.measures"
    config = vary_with(*SHORT, own, "study.measures=[Mine]")({})
    assert {task for run in study.plan(config) for task in run.mixture} == {"msm_sem_sim", "msm_ner"}
    with pytest.raises(ConfigError, match="unknown measures: Mine"):
        study.plan(vary_with(*SHORT, own, "study.heads=[msm_ner]", "study.measures=[Mine]")({}))


def test_a_split_that_a_config_does_not_name_is_there_only_if_its_class_says_so():
    """`AnnotatedPairs` has no val unless it is told one; a class that takes no such setting is asked for its records."""
    pairs = {"_target_": "mtlrank.datamodule.dataset.AnnotatedPairs", "train": "vaswani", "test": "vaswani"}
    assert [has_split(pairs, split) for split in ("val", "test")] == [False, True]
    assert not has_split({**pairs, "test": None}, "test")
    assert has_split({"_target_": "mtlrank.datamodule.dataset.PreparedDataset"}, "val")


def test_a_study_goes_on_in_its_folder_with_more_runs_or_on_another_machine():
    here, *same = (
        study.folder_of(vary_with(*SHORT, *words)({}))
        for words in ([], ["study.seeds=[7]"], ["datamodule.num_workers=2"], ["training.checkpoint_minutes=3"])
    )
    assert same == [here] * 3
    assert study.folder_of(vary_with(*SHORT, "training.epochs=9")({})) != here


def test_each_run_has_its_own_checkpoints_and_a_monitor_that_it_has(tmp_path):
    vary = vary_with(*SHORT, "training.checkpoint_dir=gs://bucket/study", "training.monitor=val/msm_ner/Accuracy")
    runs = [study.Run((task,), 3) for task in ("msm_ner", "msm_sem_sim")]
    training = [study.config_of(each, vary, tmp_path)["training"] for each in runs]
    assert [each["checkpoint_dir"] for each in training] == [
        "gs://bucket/study/msm_ner/seed-3",
        "gs://bucket/study/msm_sem_sim/seed-3",
    ]
    assert [each["monitor"] for each in training] == ["val/msm_ner/Accuracy", None]


def test_of_a_monitored_mean_a_run_keeps_the_part_that_it_has(tmp_path):
    keys = ["val/msm_ner/Accuracy", "val/msm_ner/MacroF1", "val/msm_sem_sim/Spearman"]
    vary = vary_with(*SHORT, f"training.monitor=[{','.join(keys)}]")
    mixtures = [("msm_ner",), ("msm_sem_sim",), ("msm_ner", "msm_sem_sim")]
    configs = [study.config_of(study.Run(mixture, 3), vary, tmp_path) for mixture in mixtures]
    assert [config["training"]["monitor"] for config in configs] == [keys[:2], keys[2], keys]


FOLDS = [
    "tasks=[trec2019,msm_bm25]",
    "training.epochs=1",
    "+trainer.limit_train_batches=3",
    "study.resamples=500",
    "+datamodule.dataset.datasets.trec2019={train: mtlrank-embedded/val, val: null, test: null, folds: 3}",
    "datamodule.dataset.datasets.trec2019.num_candidates=5",
    "datamodule.dataset.datasets.msm_bm25.train=mtlrank-embedded/val",
    "datamodule.dataset.datasets.msm_bm25.val=null",
    "datamodule.dataset.datasets.msm_bm25.test=null",
    "datamodule.dataset.datasets.msm_bm25.per_query=1",
]


@pytest.mark.slow
def test_a_study_trains_all_folds_and_compares_over_all_queries(data_dir, tmp_path, capsys):
    vary = vary_with(*FOLDS, f"data_dir={data_dir}", f"output_dir={tmp_path}", "study.seeds=[1]")
    (row,) = study.run(vary)
    told = capsys.readouterr()
    assert "trained with others, but not compared: msm_bm25" in told.err
    assert "run 6/6: trec2019, msm_bm25, seed 1, fold 2, about" in told.err
    assert told.err.count("mtlrank: msm_bm25 learns without the ") == 4  # for each fold, and when all is checked
    assert "learns from" not in told.err  # no leak is left
    assert "A run is 3 models: each ranks the queries of its own fold." in " ".join(told.out.split())
    assert (row.head, row.num_units, row.baseline_runs, row.folds) == ("trec2019", 50, 1, 3)

    both = tmp_path / "trec2019+msm_bm25" / "seed-1"
    folds = sorted(both.glob("fold-*"))
    tested = [set(read_head(fold / "evaluation" / "trec2019").items) for fold in folds]
    assert (sorted(map(len, tested)), len(set.union(*tested))) == ([16, 17, 17], 50)
    assert not any("leaks" in read_json(fold / "about.json") for fold in folds)

    joined = both / "all-folds" / "trec2019"
    head = read_system("x", folds).heads["trec2019"]
    assert read_head(joined).values["nDCG@10"].tolist() == head.values["nDCG@10"].tolist()
    measures = [ir_measures.parse_measure(measure) for measure in head.measures]
    found = ir_measures.iter_calc(measures, read_qrels(joined / "qrels.txt"), read_run(joined / "run.trec"))
    values = {(each.query_id, str(each.measure)): each.value for each in found}
    known = {
        (query_id, measure): head.values[measure][0, place]
        for place, (query_id,) in enumerate(head.items)
        for measure in head.measures
    }
    assert known == pytest.approx(values, abs=1e-6)
    assert row.system_value == pytest.approx(read_json(joined / "metrics.json")["values"]["nDCG@10"], abs=1e-6)

    finished = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/seed-1/fold-*/metrics.json")}
    assert study.run(vary)[0]._replace(note="") == row._replace(note="")
    assert len(finished) == 6
    assert all(path.stat().st_mtime_ns == time for path, time in finished.items())


def folded(tmp_path, *words):
    return vary_with(*FOLDS, f"output_dir={tmp_path}", *words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["+datamodule.dataset.datasets.trec2019.fold=1"],
            "fold is 1 in trec2019, but a study runs all folds: leave it",
        ),
        (["datamodule.dataset.datasets.trec2019.folds=2"], "'trec2019': folds is 2, expected a file, or at least 3"),
        (["datamodule.dataset.datasets.trec2019.folds=gone.tsv"], "The folds 'gone.tsv' does not exist"),
        (["+datamodule.dataset.datasets.msm_bm25.folds=3"], "msm_bm25 has folds, but only rankings of the class IRDat"),
        (["datamodule.dataset.datasets.trec2019.folds=/tmp"], "The folds '/tmp' is a folder, expected a file"),
        (["study.heads=[msm_bm25]"], "expected tasks of the mixtures that have folds. These have: trec2019."),
    ],
)
def test_folds_that_cannot_be_are_refused_before_anything_runs(tmp_path, words, message):
    with pytest.raises((ConfigError, DataError), match=message):
        study.run(folded(tmp_path, *words))
    assert not list(tmp_path.iterdir())


def test_one_task_is_no_study_and_the_way_to_train_its_seeds_and_folds_is_told(tmp_path):
    told = (
        r"expected at least two tasks, found trec2019\. Add some with tasks=\[\.\.\.\], or train it by itself, "
        r"`mtlrank train -m \.\.\. seed=1,2 \+\+datamodule\.dataset\.datasets\.trec2019\.fold=0,1,2` with"
    )
    with pytest.raises(ConfigError, match=told):
        study.run(folded(tmp_path, "tasks=[trec2019]", "study.seeds=[1,2]"))
    with pytest.raises(ConfigError, match=r"`mtlrank train -m \.\.\. seed=4` with the other settings"):
        study.run(vary_with("tasks=[msm_ner]", "study.seeds=[4]", f"output_dir={tmp_path}"))
    assert not list(tmp_path.iterdir())


def test_folds_may_be_given_by_a_file(tmp_path):
    file = write(tmp_path / "folds.tsv", [f"q{i}\t{i % 4}" for i in range(8)])
    words = [
        f"datamodule.dataset.datasets.trec2019.folds={file}",
        "tasks=[trec2019,msm_bm25,msm_ner]",
        "study.mixtures=[[trec2019,msm_bm25],[msm_bm25,msm_ner]]",
        "study.seeds=[7]",
    ]
    assert [str(run.place) for run in study.plan(folded(tmp_path, *words)({}))] == [
        *(f"trec2019/seed-7/fold-{i}" for i in range(4)),
        *(f"trec2019+msm_bm25/seed-7/fold-{i}" for i in range(4)),
        "msm_bm25+msm_ner/seed-7",
    ]
