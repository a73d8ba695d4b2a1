"""A published cross-encoder becomes a body with a head, is trained, saved, loaded and exported: always the same scores."""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForSequenceClassification

from mtlrank import train
from mtlrank.backbone import DECODERS, load_tokenizer
from mtlrank.building.model import build_body, build_saved_model
from mtlrank.errors import ConfigError
from mtlrank.loop.checkpoints import Checkpoint, Checkpoints
from mtlrank.model.head.cross_encoder import CLASSIFIERS
from mtlrank.model.head.pooler import Average, CLSToken, LastToken
from mtlrank.model.saved import save_model
from mtlrank.storage import read_json
from mtlrank.trained_head import load_head
from tests.batches import batch
from tests.exports import (
    CONFIGS,
    LENGTHS,
    assert_equal_scores,
    by_sentence_transformers,
    by_transformers,
    exported,
    ranked,
    text_pairs,
    write_classifier,
)
from tests.loop import runs
from tests.saved_models import composed

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own
CROSS_ENCODER = "model/heads@model.heads.trec2019=cross_encoder"
KINDS = [*((family, "cls") for family in CLASSIFIERS), ("modernbert", "mean")]
TWO_CLASSES = "task@datamodule.dataset.datasets.trec2019.task=relevance_classes"
PLACE = "datamodule.dataset.datasets.trec2019.preprocessor"


@pytest.fixture(scope="module")
def pairs():
    return text_pairs()


def words(checkpoint, *more):
    """The command line's words for a run of a ranking that starts from a published cross-encoder."""
    cut = [f"{PLACE}.{name}={value}" for name, value in LENGTHS.items()]
    body = ["model/body=pretrained", f"model.body.backbone={checkpoint}"]
    return ["tasks=[trec2019]", *body, CROSS_ENCODER, *cut, *more]


def started(checkpoint, *more):
    """(config, model) before its first step."""
    config = composed(*words(checkpoint, *more))
    return config, build_saved_model(config, {"trec2019": {}})


def saved(folder, config, model):
    backbone = config["model"]["body"]["backbone"]
    save_model(folder, model, load_tokenizer(backbone), config, {"trec2019": {}})
    return folder


@pytest.mark.parametrize(("family", "pooling"), KINDS)
def test_it_scores_as_published_also_when_saved_and_exported(tmp_path, pairs, family, pooling):
    checkpoint = write_classifier(tmp_path / "checkpoint", family, num_labels=1, classifier_pooling=pooling)
    expected = by_transformers(checkpoint, pairs)
    published = load_file(checkpoint / "model.safetensors")
    folder = saved(tmp_path / "model", *started(checkpoint))
    shutil.rmtree(checkpoint)
    assert_equal_scores(ranked(folder, pairs, tmp_path), expected)
    usual = LastToken if family in DECODERS else CLSToken
    assert type(load_head(folder, None).module.pooler) is (Average if pooling == "mean" else usual)

    written = exported(folder, tmp_path / "exported", head=None)
    assert_equal_scores(by_transformers(written, pairs), expected)
    weights = load_file(written / "model.safetensors")
    assert weights.keys() == published.keys()
    for name, weight in published.items():
        assert torch.equal(weights[name], weight), name


@pytest.mark.slow
@pytest.mark.parametrize("family", CLASSIFIERS)
def test_it_learns_and_is_exported_as_what_it_has_become(tmp_path, pairs, family):
    checkpoint = write_classifier(tmp_path / "checkpoint", family, num_labels=1)
    config, model = started(checkpoint)
    before = by_transformers(checkpoint, pairs)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    model.train()({"trec2019": batch([5, 9, 7])})["trec2019"].square().sum().backward()
    for name, weight in model.heads.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.any(), name
    optimizer.step()
    folder = saved(tmp_path / "model", config, model)
    shutil.rmtree(checkpoint)
    after = ranked(folder, pairs, tmp_path)
    assert (after - before).abs().max() > 1e-3, "a step shows"
    assert_equal_scores(by_transformers(exported(folder, tmp_path / "exported"), pairs), after)


def test_two_outputs_are_two_classes_and_exported_as_their_difference(tmp_path, pairs):
    checkpoint = write_classifier(tmp_path / "checkpoint", "bert", num_labels=2)
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    tokenizer = load_tokenizer(str(checkpoint))
    encoded = tokenizer(*map(list, zip(*pairs, strict=True)), truncation=True, padding=True, return_tensors="pt")
    with torch.inference_mode():
        logits = model(**encoded).logits
    folder = saved(tmp_path / "model", *started(checkpoint, TWO_CLASSES))
    assert_equal_scores(ranked(folder, pairs, tmp_path), logits[:, 1] - logits[:, 0])
    assert_equal_scores(by_transformers(exported(folder, tmp_path / "exported"), pairs), logits[:, 1] - logits[:, 0])


@pytest.mark.parametrize("family", ["bert", "deberta-v2", "electra", "roberta", "distilbert"])
def test_sentence_transformers_modules_hold_it_too(tmp_path, pairs, family):
    folder = saved(tmp_path / "model", *started(write_classifier(tmp_path / "checkpoint", family, num_labels=1)))
    written = exported(folder, tmp_path / "exported", layout="sentence-transformers")
    assert_equal_scores(by_sentence_transformers(written, pairs), ranked(folder, pairs, tmp_path))


def test_the_norm_of_modernbert_goes_into_a_stock_classifier_only(tmp_path):
    folder = saved(tmp_path / "model", *started(write_classifier(tmp_path / "checkpoint", "modernbert", num_labels=1)))
    with pytest.raises(ConfigError, match="has a norm.*format=transformers"):
        exported(folder, tmp_path / "exported", layout="sentence-transformers")


def test_what_sentence_transformers_has_saved_is_read(tmp_path, pairs):
    library = pytest.importorskip("sentence_transformers")
    checkpoint = write_classifier(tmp_path / "checkpoint", "bert", num_labels=1)
    library.CrossEncoder(str(checkpoint), device="cpu").save_pretrained(str(tmp_path / "theirs"))
    folder = saved(tmp_path / "model", *started(tmp_path / "theirs"))
    assert_equal_scores(ranked(folder, pairs, tmp_path), by_transformers(checkpoint, pairs))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_of_the_precision_is_learnt_in_full(tmp_path, dtype):
    checkpoint = write_classifier(tmp_path / "checkpoint", "bert", dtype, num_labels=1)
    config, model = started(checkpoint)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    weights = load_file(checkpoint / "model.safetensors")
    assert torch.equal(model.head("trec2019").projection[0].weight, weights["bert.pooler.dense.weight"].float())
    loaded = load_head(saved(tmp_path / "model", config, model), None).model
    assert {weight.dtype for weight in loaded.parameters()} == {torch.float32}


def refusal(checkpoint, *more):
    """What is said before any data are read."""
    with pytest.raises(ConfigError) as told:
        build_body(composed(*words(checkpoint, *more)))
    assert "\n" not in str(told.value)
    return str(told.value)


def test_the_number_of_outputs_must_be_the_tasks(tmp_path):
    one, two, three = (write_classifier(tmp_path / str(n), "bert", num_labels=n) for n in (1, 2, 3))
    assert "has 2 outputs, and its task Relevance has 1. Choose the task relevance_classes" in refusal(
        two, "task@datamodule.dataset.datasets.trec2019.task=relevance"
    )
    assert "has 1 outputs, and its task RelevanceClasses has 2. Choose the task relevance," in refusal(one, TWO_CLASSES)
    assert "Choose the task classes, with 3 classes" in refusal(three)


def test_classes_are_counted_when_their_names_are_known(tmp_path):
    """Before, a classifier of any size may fit."""
    config = entailment(tmp_path)
    for names in (["no", "yes", "perhaps"], ["no", "yes"]):
        if len(names) == 3:
            assert build_saved_model(config, {"nli": {"classes": names}}).head("nli").is_pretrained
        else:
            with pytest.raises(ConfigError, match="has 3 outputs, and its task Classification has 2"):
                build_saved_model(config, {"nli": {"classes": names}})


def test_classes_must_be_in_the_order_of_the_outputs(tmp_path, capsys):
    """As far as their names tell."""
    outputs = ["Contradiction", "neutral", "entailment"]
    config = entailment(tmp_path, id2label=dict(enumerate(outputs)), label2id={n: i for i, n in enumerate(outputs)})
    orders = (
        r"the classes are contradiction, entailment, neutral, and the outputs of \S+ Contradiction, neutral, entail"
    )
    with pytest.raises(ConfigError, match=f"^Head 'nli': {orders}ment, in another order. Rename the classes in the d"):
        build_saved_model(config, {"nli": {"classes": ["contradiction", "entailment", "neutral"]}})
    assert "the classes" not in capsys.readouterr().err
    for names, is_told in ((["contradiction", "neutral", "Entailment"], False), (["0", "1", "2"], True)):
        build_saved_model(config, {"nli": {"classes": names}})
        told = "head nli: the classes are 0, 1, 2, and the outputs of"
        assert (told in capsys.readouterr().err) == is_told
    config["model"]["body"]["pretrained"] = False  # nothing of it is taken
    build_saved_model(config, {"nli": {"classes": ["contradiction", "entailment", "neutral"]}})
    assert "the classes" not in capsys.readouterr().err


def test_outputs_without_names_are_numbered(tmp_path, capsys):
    """Numbers as names of classes come as texts do: 10 before 2."""
    config = entailment(tmp_path)
    with pytest.raises(ConfigError, match=r"the classes are 0, 2, 1, and the outputs of \S+ 0, 1, 2, in another order"):
        build_saved_model(config, {"nli": {"classes": ["0", "2", "1"]}})
    build_saved_model(config, {"nli": {"classes": ["0", "1", "2"]}})
    assert "the classes" not in capsys.readouterr().err
    build_saved_model(config, {"nli": {"classes": ["no", "perhaps", "yes"]}})
    assert "the classes are no, perhaps, yes, and the outputs of" in capsys.readouterr().err


def entailment(tmp_path, **settings):
    """The config of a classification that starts from a published classifier with three outputs."""
    checkpoint = write_classifier(tmp_path / "checkpoint", "bert", num_labels=3, **settings)
    words = ["datamodule/dataset=my_entailment", "model/heads@model.default_head=cross_encoder"]
    own = tmp_path / "conf" / "datamodule" / "dataset"
    own.mkdir(parents=True)
    (own / "my_entailment.yaml").write_text(
        "defaults:\n  - /task@task: classes\n  - /datamodule/preprocessor@preprocessor: pair\n"
        "_target_: mtlrank.datamodule.dataset.SentencePairs\nname: nli\ntrain: nowhere.tsv\nscore_column: 0\n"
    )
    return composed(
        f"hydra.searchpath=[file://{tmp_path / 'conf'}]",
        "experiment=finetune",
        f"model.body.backbone={checkpoint}",
        *words,
    )


def test_a_checkpoint_without_a_classifier_that_is_known_is_refused(tmp_path):
    told = refusal("mtlrank-embedded/tiny-bert", "model.body.pretrained=false")
    assert "'mtlrank-embedded/tiny-bert' has no sequence classifier to start from (its config names BertModel)" in told
    assert "mpnet" in CONFIGS
    assert "is of mpnet, whose layers are not known. Known: bert," in refusal(
        write_classifier(tmp_path / "mpnet", "mpnet", num_labels=1)
    )
    other = write_classifier(tmp_path / "other", "deberta-v2", num_labels=1, pooler_hidden_act="relu")
    assert f"the classifier of {str(other)!r} has pooler_hidden_act relu, expected gelu" in refusal(other)
    checkpoint = write_classifier(tmp_path / "narrow", "distilbert", num_labels=1)
    told = refusal(
        "mtlrank-embedded/tiny-bert", "model.body.pretrained=false", f"model.heads.trec2019.backbone={checkpoint}"
    )
    assert (
        f"Head 'trec2019' starts with weights of {str(checkpoint)!r}, but the body is 'mtlrank-embedded/tiny-bert'"
        in told
    )


def test_a_classifier_without_all_its_weights_is_refused(tmp_path):
    checkpoint = write_classifier(tmp_path / "checkpoint", "bert", num_labels=1)
    weights = load_file(checkpoint / "model.safetensors")
    del weights["classifier.bias"]
    save_file(weights, checkpoint / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match=r"is incomplete: its weights lack classifier\.bias\."):
        started(checkpoint)


def test_a_body_that_is_not_pretrained_has_a_head_that_is_not_either(tmp_path):
    checkpoint = write_classifier(tmp_path / "checkpoint", "bert", num_labels=1)
    _, model = started(checkpoint, "model.body.pretrained=false")
    weights = load_file(checkpoint / "model.safetensors")
    assert not model.head("trec2019").is_pretrained
    assert not torch.equal(model.head("trec2019").projection[2].weight, weights["classifier.weight"])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_classifier(tmp_path_factory.mktemp("published") / "checkpoint", "bert", num_labels=1)


@pytest.fixture(scope="module")
def tuned(checkpoint, data_dir, tmp_path_factory):
    """The folder of a run that learns so slowly that nothing changes."""
    output = tmp_path_factory.mktemp("tuned")
    limits = "datamodule.train_sampler.limits={trec2019: 40}"
    more = ["loop.optimizer.lr=1e-12", "training.epochs=1", limits, "training.max_val_queries=null", "test=true"]
    train.run(runs.settings(data_dir, output, *words(checkpoint, *more)))
    return output


def test_training_that_does_not_improve_on_it_keeps_it(checkpoint, tuned, pairs, tmp_path):
    assert Checkpoints(tuned / "checkpoints").all("best") == [Checkpoint("best", 0)]
    assert "training did not improve on what it started from" in read_json(tuned / "about.json")["weights"]
    assert_equal_scores(ranked(tuned / "model", pairs, tmp_path), by_transformers(checkpoint, pairs))


def test_without_an_epoch_the_published_model_is_judged(checkpoint, tuned, data_dir, tmp_path, capsys):
    config = runs.settings(data_dir, tmp_path, *words(checkpoint, "training.epochs=0", "training.max_val_queries=null"))
    found = train.run({**config, "test": True})
    said = capsys.readouterr().err
    assert f"the head trec2019 starts as the classifier of {checkpoint}" in said
    assert re.findall(r"^validation at step (\d+)", said, re.MULTILINE) == ["0"]
    assert read_json(tmp_path / "about.json")["weights"].endswith("nothing was trained")
    assert found == pytest.approx(read_json(tuned / "metrics.json"), abs=1e-6)
    assert train.run({**config, "test": True}) == found  # it is finished


def test_a_run_that_starts_from_a_trained_one_takes_its_head(tuned, data_dir, tmp_path, capsys):
    with_head = ["tasks=[trec2019]", "model/body=trained", f"model.start_from={tuned / 'model'}", CROSS_ENCODER]
    cut = [f"{PLACE}.{name}={value}" for name, value in LENGTHS.items()]
    config = runs.settings(data_dir, tmp_path, *with_head, *cut, "training.epochs=0")
    assert config["model"]["heads"]["trec2019"]["backbone"] == config["model"]["body"]["backbone"]
    train.run(config)
    assert "its body, its heads trec2019; new heads: none" in capsys.readouterr().err
    ours, theirs = (load_file(f"{folder}/model/model.safetensors") for folder in (tmp_path, tuned))
    assert all(torch.equal(ours[name], weight) for name, weight in theirs.items())


def test_the_body_may_be_named_before_or_after_the_head():
    for mixture in ([], ["datamodule/dataset=trec2019", "model/heads@model.default_head=cross_encoder"]):
        config = composed("model/body=pretrained", CROSS_ENCODER, *mixture, "model.body.backbone=some/name@v1")
        assert config["model"]["heads"]["trec2019"]["backbone"] == "some/name@v1"


def test_the_known_families_are_those_that_run_packed():
    from mtlrank.model.body.family import FAMILIES

    assert CLASSIFIERS.keys() == FAMILIES.keys()


def test_a_saved_config_names_the_saved_body(tuned):
    told = json.loads((tuned / "model" / "config.json").read_text())["model"]["heads"]["trec2019"]
    assert told["_target_"] == "mtlrank.model.head.CrossEncoderHead"
    assert load_head(tuned / "model", None).module.published.backbone == str(tuned / "model" / "backbone")
    assert AutoConfig.from_pretrained(tuned / "model" / "backbone").architectures == ["BertForSequenceClassification"]
