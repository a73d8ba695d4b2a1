"""An image with datasets and heads of one's own, made as docs/image.md says, in the pipeline."""

import re
import subprocess

import pytest

from mtlrank.storage import read_json, write_text
from pipelines.local import run
from tests.images.conftest import ROOT

pytestmark = [pytest.mark.docker, pytest.mark.filterwarnings("ignore")]

HEAD = """
from torch import nn

from mtlrank.model.head import MTLHead


class Narrow(MTLHead):
    def project(self, in_dim, out_dim):
        return nn.Sequential(nn.Linear(in_dim, 4), nn.GELU(), nn.Linear(4, out_dim))
"""


@pytest.fixture
def own_image(image, tmp_path):
    """Of the page's Dockerfile, with the README's dataset and a head."""
    (dockerfile, _) = re.findall(r"```dockerfile\n(.*?)```", (ROOT / "docs" / "image.md").read_text(), re.DOTALL)
    (dataset,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    parts = "defaults:\n  - /task@task: relevance\n  - /datamodule/preprocessor@preprocessor: pair\n"
    files = {
        "Dockerfile": re.sub(r"^FROM \S+", f"FROM {image}", dockerfile),
        "my_data.py": dataset,
        "my_heads.py": HEAD,
        "my_conf/datamodule/dataset/my_dataset.yaml": (
            f"{parts}_target_: my_data.MyDataset\nname: my_dataset\npath: /opt/my/conf/my_files\n"
        ),
        "my_conf/model/heads/narrow.yaml": (
            "defaults:\n  - pooler: cls_token\n_target_: my_heads.Narrow\n_partial_: true\ndropout: 0.0\n"
        ),
    }
    for split, size in (("train", 100), ("val", 10), ("test", 10)):
        rows = [f"{number % 2}|{split}-q{number // 2}|a question|passage {number}\n" for number in range(size)]
        files[f"my_conf/my_files/{split}.txt"] = "".join(rows)
    for name, content in files.items():
        write_text(tmp_path / name, content)
    subprocess.run(["docker", "build", "-q", "-t", "my-mtlrank:0.1.0-1", "."], cwd=tmp_path, check=True)
    yield "my-mtlrank:0.1.0-1"
    # By force: the engine may still be removing the last step's container.
    subprocess.run(["docker", "image", "rm", "--force", "my-mtlrank:0.1.0-1"], check=True)


def test_what_the_image_holds_is_trained_and_judged_by_the_pipeline(own_image, tmp_path, monkeypatch):
    monkeypatch.setenv("MTLRANK_CONFIG_DIR", str(tmp_path / "my_conf"))
    overrides = [
        "+datamodule/dataset@datamodule.dataset.datasets.my_dataset=my_dataset",
        "+model/heads@model.heads.my_dataset=narrow",
        "debug=limit",
    ]
    tasks = ["my_dataset", "msm_bm25"]
    folder = run(tmp_path / "out", "docker", own_image, epochs=1, tasks=tasks, overrides=overrides)
    saved = read_json(folder / "train" / "model" / "model" / "config.json")
    assert saved["model"]["heads"]["my_dataset"]["_target_"] == "my_heads.Narrow"
    judged = [read_json(path) for path in folder.rglob("metrics.json") if path.parent.name == "my_dataset"]
    assert [set(head["values"]) >= {"nDCG@10"} for head in judged] == [True]
