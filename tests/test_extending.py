"""The page on parts of one's own, typed as it stands."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mtlrank.batch import Record, TaskBatch
from mtlrank.datamodule.dataset import PreparedDataset
from mtlrank.datamodule.sampler import MTLSampler
from mtlrank.loop.loss import Combiner, TaskWeights
from mtlrank.model.head import MTLHead, Pooler
from mtlrank.storage import read_json, write_text
from mtlrank.task import Task
from tests.commands import typed

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own
PAGE = (Path(__file__).parent.parent / "docs" / "extending.md").read_text()
FILE = re.compile(r"^```(?:yaml|python)\n((?:# @package _global_\n)?# ([\w./]+).*?)^```", re.DOTALL | re.MULTILINE)


@pytest.fixture
def page(tmp_path):
    """A folder with the files of the page and some tagged words."""
    for content, name in FILE.findall(PAGE):
        write_text(tmp_path / name.rstrip(":"), content)
    sentences = "Ada\tB-PER\nLovelace\tI-PER\nsails\tO\n\nthe\tO\nThames\tB-LOC\nfloods\tO\n\n"
    for split, times in (("train", 30), ("val", 5), ("test", 5)):
        write_text(tmp_path / "my_entities" / f"{split}.bio", sentences * times)
    return tmp_path


def test_the_page_has_files():
    assert len(FILE.findall(PAGE)) == 19


@pytest.mark.parametrize(("title", "fields"), [("A record", Record._fields), ("A batch", TaskBatch._fields)])
def test_tables_of_fields_are_complete(title, fields):
    rows = re.findall(r"^\| (`.*?) \|", PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0], re.MULTILINE)
    assert sorted(name for row in rows for name in re.findall(r"`(\w+)`", row)) == sorted(fields)


def test_what_a_subclass_may_set_is_there():
    bases = {
        each.__name__: each for each in (Pooler, MTLHead, MTLSampler, Combiner, TaskWeights, Task, PreparedDataset)
    }
    rows = re.findall(r"^\| (.*?)\| (`.*?) \|", PAGE.partition("## What a subclass may set\n")[2], re.MULTILINE)
    found, base = 0, ""
    for first, names in rows:
        base = first.strip("` ") or base
        for name in re.findall(r"`(\w+)", names):
            assert name in vars(bases[base]) or name in bases[base].__annotations__
            found += 1
    assert found == 23


@pytest.mark.slow
def test_all_parts_of_the_page_train_and_are_judged(page, datasets, data_dir):
    (block,) = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    train, evaluate, train_ranking, train_more = (shlex.split(line) for line in block.splitlines())
    fast, judge = ["debug=limit", f"data_dir={data_dir}"], ["-m", "mtlrank", *evaluate[1:], f"data_dir={data_dir}"]
    for words in ([*train[1:], *fast], judge):
        done = subprocess.run([sys.executable, *words], cwd=page, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    for words in (train_ranking, train_more):  # in this process, to save the imports
        assert words[:3] == ["python", "-m", "mtlrank.train"]
        assert typed(page, "train", *words[3:], *fast) == 0
    run = read_json(page / "runs" / "mine" / "run.json")
    assert run["model.heads.msm_bm25._target_"] == "my_parts.Deep"
    assert run["model.heads.msm_bm25.pooler._target_"] == "my_parts.MaxPool"
    assert run["datamodule.dataset.datasets.msm_bm25.task._target_"] == "my_parts.LogCosh"
    assert run["datamodule.train_sampler._target_"] == "my_parts.Alternating"
    metrics = read_json(page / "runs" / "mine" / "metrics.json")
    assert {"test/msm_bm25/MSE", "test/my_entities/Accuracy"} <= metrics.keys()
    run = read_json(page / "runs" / "ranking" / "run.json")
    assert run["datamodule.dataset.datasets.trec2019.task._target_"] == "my_parts.ExpectedGrade"
    assert "test/trec2019/AP(rel=2)" in read_json(page / "runs" / "ranking" / "metrics.json")
    run = read_json(page / "runs" / "more" / "run.json")
    assert run["loop.loss._target_"] == "my_more.Fading"
    assert run["model.body._target_"] == "my_more.FreshTop"
    assert run["datamodule.train_sampler._target_"] == "my_more.ShortFirst"
    assert (page / "runs" / "more" / "my_log").is_dir()
    assert {"test/trec2019/BestGrade", "test/my_overlap/MSE"} <= read_json(
        page / "runs" / "more" / "metrics.json"
    ).keys()


@pytest.mark.parametrize("columns", ["[1,2]", "[1]"], ids=["pairs", "single texts"])
def test_the_classes_of_the_page_are_learnt(page, home, columns):
    words = {
        "entailment": ("a harbour at night", "a harbour"),
        "neutral": ("a garden", "lights"),
        "contradiction": ("silent", "loud"),
    }
    rows = "".join(f"{label}\t{first}\t{second}\n" for label, (first, second) in words.items())
    for split, times in (("train", 40), ("val", 5), ("test", 5)):
        write_text(page / "my_entailment" / f"{split}.tsv", rows * times)
    more = [f"datamodule.dataset.columns={columns}", "training.epochs=3", "training.patience=null", "output_dir=run"]
    assert typed(page, "train", "--config-dir", "my_conf", "datamodule/dataset=my_entailment", *more) == 0
    metrics = read_json(page / "run" / "metrics.json")
    assert metrics["test/my_entailment/Accuracy"] == metrics["test/my_entailment/MacroF1"] == 1.0
    assert typed(page, "evaluate", "model_dir=run/model") == 0


def test_the_dataset_of_the_readme_trains(tmp_path, home):
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    (tmp_path / "my_data.py").write_text(block)
    parts = "defaults:\n  - /task@task: relevance\n  - /datamodule/preprocessor@preprocessor: pair\n"
    write_text(
        tmp_path / "my_conf" / "datamodule" / "dataset" / "my_dataset.yaml",
        f"{parts}_target_: my_data.MyDataset\nname: my_dataset\npath: my_files\n",
    )
    for split in ("train", "val", "test"):
        rows = [f"{2 * (n % 2)}|{split}-q{n // 2}|a question {n // 2}|passage {n} of {split}\n" for n in range(20)]
        write_text(tmp_path / "my_files" / f"{split}.txt", "".join(rows))
    words = ["--config-dir", "my_conf", "datamodule/dataset=my_dataset", "debug=limit", "output_dir=run"]
    assert typed(tmp_path, "train", *words) == 0
    assert "test/my_dataset/nDCG@10" in read_json(tmp_path / "run" / "metrics.json")
