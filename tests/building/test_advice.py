import re
from types import SimpleNamespace

import pytest
import torch

from mtlrank.building import advice
from mtlrank.loop.loss import DynamicWeightAverage
from mtlrank.model.body import MTLBody
from mtlrank.task.distillation import MarginMSE
from tests.decoders import write_decoder


@pytest.mark.parametrize(("spread", "scale", "warned"), [(2e6, 1.0, True), (2e6, 1e-6, False), (10.0, 1.0, False)])
def test_scores_of_a_teacher_that_are_no_logits_are_warned_of(capsys, spread, scale, warned):
    task = MarginMSE(["AP"], teacher_scale=scale)
    advice._check_teachers({"x": SimpleNamespace(name="x", task=task, manifest={"labels": {"std": spread}})})
    assert (
        "set datamodule.dataset.task.teacher_scale=2e-06 (in a mixture, datamodule.dataset.datasets.x.task.teacher"
        in capsys.readouterr().err
    ) == warned


def test_the_tiny_body_is_not_for_other_data(config, datasets, capsys):
    loss = DynamicWeightAverage({})
    advice.advise(config, MTLBody(config["model"]["body"]["backbone"], pretrained=False), datasets, loss)
    assert "the tiny body" not in capsys.readouterr().err
    mixture = config["datamodule"]["dataset"]
    preprocessor = mixture["datasets"]["trec2019"]["preprocessor"]  # the tokenizer is the body's
    own = {"_target_": "my_data.MyDataset", "name": "mine", "path": "my_files", "preprocessor": preprocessor}
    changed = {**mixture, "datasets": {**mixture["datasets"], "mine": own}}
    advice._check_body({**config, "datamodule": {**config["datamodule"], "dataset": changed}})
    assert "the tiny body is for the invented collection, and not for other data (mine)" in capsys.readouterr().err


@pytest.mark.parametrize(("most", "told"), [(255, True), (256, False)])
def test_texts_longer_than_rotary_positions_were_trained_with_are_told(datasets, tmp_path, capsys, most, told):
    write_decoder(tmp_path, "qwen3", max_position_embeddings=most)
    advice._check_lengths(MTLBody(str(tmp_path)), datasets)
    expected = f"max_length is 256, but {tmp_path} was trained with texts of up to 255 tokens"
    assert (expected in capsys.readouterr().err) == told


@pytest.mark.parametrize(("epochs", "told"), [(2, True), (3, False)])
def test_a_training_that_ends_before_losses_are_weighed_is_told(capsys, epochs, told):
    advice._check_epochs({"training": {"epochs": epochs}}, DynamicWeightAverage({}))
    assert ("loop/loss=dwa weighs all tasks alike" in capsys.readouterr().err) == told


def test_rates_that_are_too_high_for_a_pretrained_body_are_told(config, datasets, capsys):
    for pretrained, told in ((False, False), (True, True)):
        body = {**config["model"]["body"], "pretrained": pretrained}
        advice._check_rate({**config, "model": {**config["model"], "body": body}})
        assert ("usually learn with 1e-5 to 1e-4" in capsys.readouterr().err) == told
    advice._check_rate(
        {**config, "model": {**config["model"], "body": body}, "training": {**config["training"], "epochs": 0}}
    )
    assert capsys.readouterr().err == "", "nothing is learnt"


@pytest.mark.parametrize(
    ("settings", "has_parsed_once", "told"),
    [
        ({"precision": "bf16-mixed", "deterministic": True}, True, []),
        ({"precision": "32-true", "deterministic": True}, True, ["precision"]),
        ({"precision": "bf16-mixed", "deterministic": True}, False, ["deterministic"]),
        ({"precision": "32-true", "deterministic": False}, False, ["precision"]),
    ],
)
def test_what_makes_a_gpu_slow_is_told(monkeypatch, capsys, settings, has_parsed_once, told):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    monkeypatch.setattr(torch.backends.cuda, "cublas_workspace_size", None, raising=False)
    if not has_parsed_once:
        monkeypatch.delattr(torch.backends.cuda, "cublas_workspace_size")
    advice._check_speed({**settings, "accelerator": "auto"})
    assert re.findall(r"trainer\.(\w+) (?:is|costs)", capsys.readouterr().err) == told
    advice._check_speed({**settings, "accelerator": "cpu"})
    assert capsys.readouterr().err == ""
