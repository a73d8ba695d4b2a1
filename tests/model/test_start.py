"""A run that starts from a trained model: whose weights it begins with, and what is refused."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from mtlrank import embedded, evaluate, train
from mtlrank.backbone import load_config, load_tokenizer
from mtlrank.building.model import build_body, build_model, build_saved_model
from mtlrank.composing.compose import compose_config
from mtlrank.composing.selection import select_tasks
from mtlrank.errors import ConfigError, DataError
from mtlrank.loop.checkpoints import Checkpoints
from mtlrank.model.saved import load_weights, read_model
from mtlrank.storage import read_json, write_json, write_manifest
from tests.batches import batch
from tests.loop import runs

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own
EIGHT_STEPS = "datamodule.train_sampler.limits={trec2019: 32, msm_ner: 32}"  # an epoch
LORA = ["training.epochs=2", EIGHT_STEPS, "model.body.lora={rank: 4}", "model.body.activation_checkpointing=true"]


@pytest.fixture(scope="module")
def trained(data_dir, tmp_path_factory):
    """The folder of a run with low-rank updates, which was stopped once."""
    output = tmp_path_factory.mktemp("run")
    config = runs.settings(data_dir, output, *LORA)
    runs.run_until(config, 13)
    train.run(config)
    return output


def started(data_dir, *more):
    """The model of a run before its first step."""
    config = select_tasks(runs.settings(data_dir, data_dir / "output", *more))
    datasets = train.prepare.run(config, None)
    return build_model(config, build_body(config), datasets)


def changed_copy(folder, target, change):
    """A model folder whose config says something else."""
    shutil.copytree(folder, target)
    config = json.loads((target / "config.json").read_text())
    change(config)
    (target / "config.json").write_text(json.dumps(config))
    manifest = json.loads((target / "manifest.json").read_text())
    manifest.pop("files")
    write_manifest(target, manifest)
    return target


def test_a_run_with_updates_goes_on_to_the_bit(data_dir, trained, tmp_path):
    train.run(runs.settings(data_dir, tmp_path, *LORA))
    whole = runs.content(tmp_path)
    runs.assert_same(whole, runs.content(trained))
    assert any(".lora_A." in name for name in whole["state_dict"])


def test_a_saved_model_holds_merged_weights_that_score_as_it_did(data_dir, trained):
    saved, labels = read_model(trained / "model")
    merged = build_saved_model(saved, labels).eval()
    load_weights(trained / "model", merged)
    assert not [name for name in merged.state_dict() if "lora" in name or "base_layer" in name]
    adapted, checkpoints = started(data_dir, *LORA).eval(), Checkpoints(trained / "checkpoints")
    metrics = json.loads((trained / "metrics.json").read_text())
    (best,) = (found for found in map(checkpoints.read, checkpoints.all("best")) if found["values"] == metrics)
    adapted.load_state_dict({name.removeprefix("model."): weight for name, weight in best["state_dict"].items()})
    batches = {"trec2019": batch([5, 3, 9]), "msm_ner": batch([7, 4], spans=[[[1, 3]], [[2, 4]]])}
    scores = merged(batches)
    for name, expected in adapted(batches).items():
        torch.testing.assert_close(scores[name], expected, atol=1e-5, rtol=1e-5)
    merged.body.load_state_dict(started(data_dir).body.state_dict())
    assert not torch.allclose(merged(batches)["msm_ner"], scores["msm_ner"], atol=1e-4)  # something was learnt


def test_body_and_heads_begin_with_the_weights_of_the_trained(data_dir, trained, capsys):
    more = ["tasks=[trec2019,msm_ner,msm_coref]", "model/heads/pooler@model.heads.trec2019.pooler=cls_token"]
    model = started(data_dir, f"model.start_from={trained / 'model'}", *more)
    assert f"starting from {trained / 'model'}: its body, its heads msm_ner; new heads: trec2019, msm_coref" in (
        capsys.readouterr().err
    )
    weights, state = load_file(trained / "model" / "model.safetensors"), model.state_dict()
    taken = {name for name, weight in state.items() if name in weights and torch.equal(weights[name], weight)}
    assert {name for name in state if name.startswith(("body.", "heads.msm_ner."))} <= taken
    assert "heads.trec2019.projection.weight" not in taken


def test_a_head_of_other_sizes_begins_anew(data_dir, trained, tmp_path, capsys):
    folder = changed_copy(trained / "model", tmp_path / "narrow", lambda config: None)
    weights = load_file(folder / "model.safetensors")
    for name, kept in (("0.weight", (8, 64)), ("0.bias", (8,)), ("2.weight", (..., 8))):
        place = f"heads.msm_ner.projection.{name}"
        weights[place] = weights[place][tuple(slice(end) if end is not ... else end for end in kept)].contiguous()
    save_file(weights, folder / "model.safetensors")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest.pop("files")
    write_manifest(folder, manifest)
    started(data_dir, f"model.start_from={folder}")
    assert "its heads trec2019; new heads: msm_ner" in capsys.readouterr().err


@pytest.mark.slow
def test_a_head_for_numbers_keeps_its_scores_on_other_labels(data_dir, tmp_path):
    whole = (embedded.folder() / "sem_sim" / "train.tsv").read_text().splitlines(keepends=True)
    low = tmp_path / "low.tsv"
    low.write_text("".join(line for line in whole if float(line.split("\t")[0]) < 2))
    alone = ["tasks=[msm_sem_sim]", "datamodule.train_sampler.limits={}", "training.max_val_queries=null"]
    words = [*alone, "test=true", "training.epochs=1"]
    first = train.run(runs.settings(data_dir, tmp_path / "first", *words))
    other = [*words, f"datamodule.dataset.datasets.msm_sem_sim.train={low}", "training.epochs=0"]
    from_model = [f"model.start_from={tmp_path / 'first'}", "model/body=trained"]
    again = train.run(runs.settings(data_dir, tmp_path / "second", *other, *from_model))
    assert again == pytest.approx(first, abs=1e-4)
    (tmp_path / "first" / "metrics.json").unlink()  # as if it had not been finished
    from_checkpoint = ["training.accept_changes=[data,epochs]"]
    assert train.run(runs.settings(data_dir, tmp_path / "first", *other, *from_checkpoint)) == again


def test_updates_of_a_new_run_begin_on_the_trained_body(data_dir, trained):
    model = started(data_dir, f"model.start_from={trained / 'model'}", "model.body.lora={rank: 2}")
    expected = load_file(trained / "model" / "model.safetensors")
    model.body.merge()
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(weight, expected[name], msg=name)


def test_a_run_starts_from_it_and_is_judged(data_dir, trained, tmp_path):
    words = ["model/body=trained", f"model.start_from={trained}", "training.epochs=1", "test=true"]  # the run's folder
    config = runs.settings(data_dir, tmp_path, *words)
    assert config["model"]["body"]["backbone"] == "mtlrank-embedded/tiny-bert"
    metrics = train.run(config)
    shutil.rmtree(tmp_path / "evaluation")
    moved = tmp_path / "elsewhere"
    (tmp_path / "model").rename(moved)
    words = [f"model_dir={moved}", f"data_dir={data_dir}", f"output_dir={tmp_path / 'again'}"]
    again = evaluate.run(compose_config(words, trusted=True, name="evaluate"))
    assert again == pytest.approx({key: value for key, value in metrics.items() if key.startswith("test/")}, abs=1e-5)


def test_another_body_is_refused_with_the_word_that_helps(data_dir, trained, tmp_path):
    from transformers import AutoConfig, AutoTokenizer

    backbone = trained / "model" / "backbone"
    config = AutoConfig.from_pretrained(backbone)
    heads, wide = tmp_path / "heads", tmp_path / "wide"
    for folder, change in ((heads, {"num_attention_heads": 1}), (wide, {"intermediate_size": 8})):
        type(config)(**{**config.to_dict(), **change}).save_pretrained(folder)
        AutoTokenizer.from_pretrained(backbone).save_pretrained(folder)
    start = [f"model.start_from={trained / 'model'}", "model/body=pretrained"]
    way_out = "Use model/body=trained, or model.body.backbone=mtlrank-embedded/tiny-bert"
    for folder, complaint in (
        (heads, "num_attention_heads is"),
        (wide, "weights of the body differ: .* in the saved model, .* in this one"),
    ):
        with pytest.raises(ConfigError, match=f"{complaint}.*{way_out}"):
            started(data_dir, *start, f"model.body.backbone={folder}")


def test_a_body_that_computes_otherwise_is_refused_with_what_differs(data_dir, trained, tmp_path):
    """Shapes do not show it. What matters in training only, or to other programs, may differ."""
    backbone = trained / "model" / "backbone"
    start = [f"model.start_from={trained / 'model'}", f"model.body.backbone={tmp_path}"]
    load_tokenizer(str(backbone)).save_pretrained(tmp_path)
    config = load_config(str(backbone))
    for key in ("hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range", "classifier_dropout"):
        setattr(config, key, 0.3)
    config.update({"eos_token_id": 3, "dtype": "bfloat16", "architectures": ["BertForMaskedLM"], "of_a_tool": 1})
    config.save_pretrained(tmp_path)
    started(data_dir, *start)
    config.update({"hidden_act": "relu", "layer_norm_eps": 0.1})
    config.save_pretrained(tmp_path)
    complaint = (
        "hidden_act is gelu in model.start_from, relu in this body; layer_norm_eps is 1e-12 .*, 0.1 in this body"
    )
    with pytest.raises(ConfigError, match=f"has another one. {complaint}. Use model/body=trained"):
        started(data_dir, *start)


def swap_words(tokenizer, settings):
    vocabulary = tokenizer["model"]["vocab"]
    first, second = list(vocabulary)[-2:]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]


def keep_case(tokenizer, settings):
    tokenizer["normalizer"]["lowercase"] = settings["do_lower_case"] = False


@pytest.mark.parametrize(("change", "parts"), [(swap_words, "model, vocabulary"), (keep_case, "normalizer")])
def test_another_tokenizer_is_refused(data_dir, trained, tmp_path, change, parts):
    backbone = shutil.copytree(trained / "model" / "backbone", tmp_path / "backbone")
    tokenizer, settings = (read_json(backbone / name) for name in ("tokenizer.json", "tokenizer_config.json"))
    change(tokenizer, settings)
    write_json(backbone / "tokenizer.json", tokenizer)
    write_json(backbone / "tokenizer_config.json", settings)
    with pytest.raises(ConfigError, match=f"Their tokenizers differ \\({parts}\\)"):
        started(data_dir, f"model.start_from={trained / 'model'}", f"model.body.backbone={backbone}")


def test_the_name_of_a_body_that_is_gone_is_its_copy(trained, tmp_path):
    folder = changed_copy(
        trained / "model", tmp_path / "model", lambda c: c["model"]["body"].update(backbone="/gone/backbone")
    )
    config = compose_config(["model/body=trained", f"model.start_from={folder}"], trusted=True)
    assert config["model"]["body"]["backbone"] == str(folder / "backbone")


def test_what_is_no_trained_model_is_refused(data_dir, trained, tmp_path):
    with pytest.raises(ConfigError, match="model/body=trained needs model.start_from"):
        compose_config(["model/body=trained"], trusted=True)
    with pytest.raises(DataError, match="There is no model in"):
        started(data_dir, f"model.start_from={tmp_path}")
    folder = shutil.copytree(trained / "model", tmp_path / "model")
    (folder / "model.safetensors").write_bytes(b"other")
    with pytest.raises(DataError, match="was changed or damaged"):
        started(data_dir, f"model.start_from={folder}")
