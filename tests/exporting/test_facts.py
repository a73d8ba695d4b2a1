import json

import pytest

from mtlrank.exporting.facts import base_model, body, training
from mtlrank.storage import write_json
from tests.saved_models import composed


def with_body(**changes):
    config = composed("tasks=[trec2019]")
    config["model"]["body"] |= {"pretrained": True, **changes}
    return config


def told(config, folder):
    return dict(training(config, folder))


def test_losses_batches_and_rates_are_told_with_their_settings(tmp_path):
    words = [
        "task@datamodule.dataset.datasets.trec2019.task=relevance_lambda",
        "loop/loss=pcgrad",
        "training.batch_size=8",
    ]
    more = [
        "loop.head_lr=1e-3",
        "trainer.accumulate_grad_batches=4",
        "datamodule/sampler@datamodule.train_sampler=uniform",
    ]
    facts = told(composed("tasks=[trec2019,msm_bm25]", *words, *more, "loop.optimizer.lr=2e-5"), tmp_path / "model")
    assert facts["Loss of trec2019"] == "LambdaLoss (scheme lambdarank, sigma 1.0, mu 10.0)"
    assert facts["Loss of msm_bm25"] == "Regression"
    assert facts["Combined by"] == "Aggregated (aggregator PCGrad)"
    assert facts["Sampler"] == "Uniform"
    assert facts["Batch"] == "8 samples, accumulate_grad_batches 4"
    assert facts["Learning rate"].startswith("2e-05, 0.001 for heads, AdamW, linear_warmup")
    assert facts["Seed"] == "42"


def test_steps_and_code_are_those_of_the_finished_run(tmp_path):
    config, model = composed("training.epochs=3", "training.max_steps=50"), tmp_path / "model"
    begun = {"mtlrank": "0.1.0", "commit": "abc", "started": "today"}
    write_json(tmp_path / "about.json", begun)
    facts = told(config, model)
    assert facts["Steps"] == "at most 3 epochs and 50 steps"
    assert "Trained with" not in facts, "this description may be of an attempt after the model's"
    write_json(tmp_path / "about.json", {**begun, "steps": 1234, "weights": "step 900, the best by val/a/MSE (0.1)"})
    facts = told(config, model)
    assert facts["Steps"] == "1,234"
    assert facts["Weights"] == "step 900, the best by val/a/MSE (0.1)"
    assert facts["Trained with"] == "mtlrank 0.1.0, commit abc"
    assert "Weights" not in told(config, tmp_path / "another"), "only the folder `model` is the run's"


@pytest.mark.parametrize(
    ("name", "pretrained", "expected"),
    [
        ("google-bert/bert-base-uncased", True, "google-bert/bert-base-uncased"),
        ("google-bert/bert-base-uncased@v2", True, "google-bert/bert-base-uncased"),
        ("google-bert/bert-base-uncased", False, None),
        ("mtlrank-embedded/tiny-bert", True, None),
        ("/models/bert", True, None),
        ("./models/bert", True, None),
        ("docs/here", True, None),
        ("bert", True, None),
    ],
)
def test_the_base_model_is_a_name_on_the_hub(tmp_path, monkeypatch, name, pretrained, expected):
    (tmp_path / "docs" / "here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert base_model(with_body(backbone=name, pretrained=pretrained)) == expected


def test_a_model_that_continues_another_has_no_known_base():
    config = with_body(backbone="google-bert/bert-base-uncased")
    config["model"]["start_from"] = "/home/me/runs/first/model"
    assert base_model(config) is None
    assert body(config) == "google-bert/bert-base-uncased, started from the model model"


def test_the_body_of_a_local_folder_is_told_with_the_name_in_its_config(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"_name_or_path": "nreimers/MiniLM-L6-H384-uncased"}))
    assert body(with_body(backbone=str(folder))) == (
        "mine, a local folder whose config names nreimers/MiniLM-L6-H384-uncased"
    )
    (folder / "config.json").write_text(json.dumps({"_name_or_path": "/home/me/secret/bert"}))
    assert body(with_body(backbone=str(folder))) == "mine, a local folder whose config names bert"
    for content in ("{}", "[]", "no JSON"):
        (folder / "config.json").write_text(content)
        assert body(with_body(backbone=str(folder))) == "mine"
    assert body(with_body(backbone="/gone/mine", lora={"rank": 8}, frozen_layers=2, pretrained=False)) == (
        "mine, its weights drawn anew, learnt by LoRA of rank 8, frozen layers: 2"
    )
