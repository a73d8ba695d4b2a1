"""The commands that users were promised, as they type them, and mistakes as they make them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import typed

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own
FAST = ["debug=limit"]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, home, config, datasets):
    """A folder to work in, where the five datasets are prepared already."""
    from mtlrank.building.dataset import prepared_folder

    folder = tmp_path_factory.mktemp("work")
    for key, dataset in datasets.items():
        target = folder / "data" / Path(prepared_folder(config, key)).name
        shutil.copytree(dataset.split("train").folders[0].parent.parent, target)
    return folder


def mtlrank(workplace, *arguments, module="mtlrank.train", **environment):
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=workplace,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def trained(workplace, *arguments, output="out", **environment):
    """Run training to its end in a process of its own and return its metrics."""
    shutil.rmtree(workplace / output, ignore_errors=True)
    done = mtlrank(workplace, *arguments, *FAST, f"output_dir={output}", **environment)
    assert done.returncode == 0, done.stderr
    assert "GPU available" not in done.stderr  # Lightning is quiet
    return json.loads((workplace / output / "metrics.json").read_text())


def trained_here(workplace, *arguments):
    """The same in this process, to save the imports."""
    shutil.rmtree(workplace / "here", ignore_errors=True)
    assert typed(workplace, "train", *arguments, *FAST, "output_dir=here") == 0
    return json.loads((workplace / "here" / "metrics.json").read_text())


@pytest.fixture(scope="module")
def two_tasks(workplace):
    """The metrics of a run of two tasks, which lies in `two`."""
    return trained(workplace, "tasks=[trec2019,msm_ner]", output="two", PYTHONHASHSEED="1")


@pytest.fixture
def complaint(workplace, capsys):
    """Run what cannot work, in this process to save the imports; gives the one line that comes of it."""

    def run(step, arguments, code):
        assert typed(workplace, step, *arguments) == code
        told = capsys.readouterr().err.strip().splitlines()
        lines = [line for line in told if not line.startswith("prepared ")]
        assert len(lines) == 1, lines
        assert lines[0].startswith("mtlrank: ")
        return lines[0]

    return run


def test_batch_size_and_learning_rate(workplace):
    metrics = trained_here(workplace, "training.batch_size=32", "loop.optimizer.lr=1e-4")
    for head in ("trec2019/nDCG@10", "msm_bm25/MSE", "msm_sem_sim/Spearman", "msm_ner/Accuracy", "msm_coref/Accuracy"):
        assert f"test/{head}" in metrics


def test_the_key_binds_and_the_name_labels(workplace):
    metrics = trained_here(
        workplace, "tasks=[trec2019,msm_bm25]", "datamodule.dataset.datasets.msm_bm25.name=msm_bm25_new"
    )
    assert "test/msm_bm25_new/MSE" in metrics
    assert not any("/msm_bm25/" in key for key in metrics)


def test_another_sampler_and_a_subset_of_tasks(workplace):
    sampler = "datamodule/sampler@datamodule.train_sampler=sequential"
    metrics = trained_here(workplace, sampler, "tasks=[trec2019,msm_bm25]")
    assert {key.split("/")[1] for key in metrics} == {"trec2019", "msm_bm25"}


def test_a_dataset_of_ones_own_from_a_folder_outside_the_package(workplace):
    group = workplace / "my_conf" / "datamodule" / "dataset"
    group.mkdir(parents=True)
    (group / "my_dataset.yaml").write_text(
        "defaults:\n  - /task@task: regression\n  - /datamodule/preprocessor@preprocessor: pair\n"
        "_target_: my_data.Lengths\nname: my_dataset\n"
    )
    (workplace / "my_data.py").write_text(
        "from mtlrank.batch import Record\n"
        "from mtlrank.datamodule.dataset import PreparedDataset\n\n\n"
        "class Lengths(PreparedDataset):\n"
        "    def records(self, split):\n"
        "        for i in range(20):\n"
        "            yield Record(f'{split}{i}', f'{split}{i}', None, 'word ' * (i + 1), i)\n"
    )
    metrics = trained_here(workplace, "--config-dir", "my_conf", "datamodule/dataset=my_dataset")
    assert set(metrics) >= {"val/my_dataset/MSE", "test/my_dataset/MSE", "test/my_dataset/Pearson"}


def test_the_same_seed_gives_the_same_numbers_in_any_process(workplace, two_tasks):
    assert two_tasks == trained(workplace, "tasks=[trec2019,msm_ner]", PYTHONHASHSEED="2")
    assert two_tasks != trained_here(workplace, "tasks=[trec2019,msm_ner]", "seed=7")


def test_a_trained_model_can_be_judged_again(workplace, two_tasks):
    done = mtlrank(workplace, "model_dir=two/model", "output_dir=again", module="mtlrank.evaluate")
    assert done.returncode == 0, done.stderr
    head = json.loads((workplace / "again" / "trec2019" / "metrics.json").read_text())
    for measure, value in head["values"].items():
        assert two_tasks[f"test/trec2019/{measure}"] == pytest.approx(value, abs=1e-6)
    assert len((workplace / "again" / "trec2019" / "run.trec").read_text().splitlines()) == 2000
    sources = json.loads((workplace / "two" / "model" / "sources.json").read_text())
    assert sources["trec2019"]["train"]["id"] == "mtlrank-embedded/train"


def test_the_command_line_tool_does_the_same(workplace):
    tool = str(Path(sys.executable).parent / "mtlrank")
    done = subprocess.run([tool, "--help"], capture_output=True, text=True, check=True)
    assert all(step in done.stdout for step in ("prepare", "train", "evaluate"))
    done = subprocess.run(
        [tool, "prepare", "tasks=[msm_ner]"], cwd=workplace, capture_output=True, text=True, check=True
    )
    assert "prepared msm_ner" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["datamodule/dataset=trec2091"], 2, "Did you mean 'trec2019'?"),
        (["+model/heads@model.heads.gone=cls"], 2, "Heads without a dataset: gone."),
        (["model.heads.msm_ner.pooler.layers=[9]"], 2, "layer 9 is deeper than the body, which has 3 layers"),
        (["training.batchsize=3"], 2, "Did you mean 'training.batch_size'?"),
        (["output_dir=/proc/nowhere"], 4, "Cannot write to the folder '/proc/nowhere'"),
        (["data_dir=/proc/nowhere"], 4, "Cannot write to the folder '/proc/nowhere'"),
        (["training.batch_size=0"], 2, "training.batch_size is 0, expected a whole number, at least 1"),
        (["datamodule.dataset.datasets.trec2019.task.measures=[nDGC@10]"], 2, "Unknown ranking measure 'nDGC@10'"),
        (["model.body.backbone=/no/such/folder"], 2, "'/no/such/folder' is not a folder"),
        (
            ["datamodule.dataset.datasets.msm_ner.train=nowhere"],
            3,
            "The file of split 'train' 'nowhere' does not exist",
        ),
        (["datamodule.dataset.datasets.trec2019.train=vaswanni"], 2, "Did you mean vaswani"),
        (
            ["datamodule.dataset.datasets.msm_sem_sim.task.maximum=3"],
            3,
            "train.tsv:4: label '5.0' is out of range: expected 0.0 to 3 (the task's minimum and maximum)",
        ),
        (["model=nonsense"], 2, "model has no option 'nonsense'"),
    ],
)
def test_a_mistake_gives_one_line(complaint, arguments, code, expected):
    elsewhere = [] if "output_dir" in arguments[0] else ["output_dir=mistake"]
    assert expected in complaint("train", [*arguments, *elsewhere], code)


def test_a_mistake_gives_one_line_in_a_process_of_its_own(workplace):
    done = mtlrank(workplace, "training.batchsize=3")
    assert done.returncode == 2
    assert done.stderr.startswith(
        "mtlrank: Unknown config key 'training.batchsize'. Did you mean 'training.batch_size'?"
    )
    assert len(done.stderr.splitlines()) == 1


def test_a_missing_model_gives_one_line(complaint):
    assert "There is no folder nowhere: expected" in complaint("evaluate", ["model_dir=nowhere"], 3)


def test_a_changed_model_is_refused(workplace, complaint, two_tasks):
    config = shutil.copytree(workplace / "two" / "model", workplace / "changed") / "config.json"
    config.write_text(config.read_text().replace("mtlrank.model.head.MLP", "os.system"))
    assert "was changed or damaged" in complaint("evaluate", ["model_dir=changed"], 3)
