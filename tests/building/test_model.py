import pytest
import torch

from mtlrank import train
from mtlrank.backbone import load_config, load_tokenizer
from mtlrank.building.datamodule import build_datamodule
from mtlrank.building.dataset import check_tokenizers
from mtlrank.building.loop import build_loop, check_loop
from mtlrank.building.model import build_body, build_model
from mtlrank.composing.compose import compose_config
from mtlrank.composing.selection import select_tasks
from mtlrank.errors import ConfigError
from mtlrank.loop.loss import ExampleMean
from tests import decoders


def composed(*overrides):
    return select_tasks(compose_config(overrides, trusted=True))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("model.heads.trec2019.pooler.layers=3", "Head 'trec2019': .*not iterable"),
        ("model.heads.trec2019.dropout=2", "Head 'trec2019': dropout probability has to be between 0 and 1"),
        ("+model.heads.trec2019.nope=1", "Head 'trec2019': mtlrank.model.head.MLP has no setting 'nope'"),
        ("+datamodule.nope=1", "mtlrank.datamodule.multitask.MTLDataModule has no setting 'nope'. It takes: dataset"),
        ("+datamodule.train_sampler.nope=1", "sampler.RandomProportional has no setting 'nope'. It takes: .*limits"),
        ("datamodule.train_sampler.limits=100", "limits is 100, expected whole numbers"),
        (
            "datamodule/sampler@datamodule.val_sampler=uniform",
            "datamodule.val_sampler is Uniform, but judging takes every",
        ),
        ("loop/loss=static_weights loop.loss.weights=3", "loop.loss does not take its settings"),
        ("+loop.nope=1", "^mtlrank.loop.multitask.MultiTaskLoop has no setting 'nope'. It takes: model, [a-z, _]*[.]$"),
        ("+model.nope=1", "^mtlrank.model.multitask.MultiTaskModel has no setting 'nope'. It takes: body, heads.$"),
        ("model.body.pretrained=no", "pretrained of mtlrank.model.body.MTLBody is 'no', expected true or false"),
        ("loop.optimizer.fused=off", "fused of torch.optim.AdamW is 'off', expected true or false"),
        (
            "datamodule.dataset.datasets.msm_ner.preprocessor.max_length=512",
            r"max_length of msm_ner's preprocessor is 512, but mtlrank-embedded/tiny-bert has positions for 256 tokens",
        ),
    ],
)
def test_settings_that_nothing_takes_are_named(datasets, word, message):
    config = composed(*word.split())
    with pytest.raises(ConfigError, match=message):
        datamodule = build_datamodule(config, datasets)
        for split in ("train", "val"):
            datamodule.num_batches(split)
        model = build_model(config, build_body(config), datasets)
        build_loop(config, model, datasets, total_steps=1)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (
            "datamodule.train_sampler.limits={trec2018:5}",
            "limits names unknown datasets: trec2018. Did you mean 'trec2019'",
        ),
        ("+datamodule.train_sampler.nope=1", "RandomProportional has no setting 'nope'"),
        ("trainer.strategy=dpp", "Lightning refuses the trainer settings: You selected an invalid strategy name"),
        ("+trainer.nope=1", "Lightning refuses the trainer settings: .*nope"),
    ],
)
def test_what_cannot_be_built_is_told_before_data_is_prepared(tmp_path, word, message):
    config = compose_config([word, f"data_dir={tmp_path}/data", f"output_dir={tmp_path}/run"], trusted=True)
    with pytest.raises(ConfigError, match=message):
        train.run(config)
    assert not (tmp_path / "data").exists()


def test_tokens_without_embeddings_are_told_before_data_is_prepared(tmp_path):
    tokenizer = load_tokenizer("mtlrank-embedded/tiny-bert")
    rows = len(tokenizer)
    tokenizer.add_tokens(["[Q]", "[D]", "[E]"])
    tokenizer.save_pretrained(tmp_path / "body")
    load_config("mtlrank-embedded/tiny-bert").save_pretrained(tmp_path / "body")
    words = [f"model.body.backbone={tmp_path}/body", f"data_dir={tmp_path}/data", f"output_dir={tmp_path}/run"]
    with pytest.raises(ConfigError, match=rf"tokens up to {rows + 2:,}, but the body has embeddings of {rows:,} only"):
        train.run(compose_config(words, trusted=True))
    assert not (tmp_path / "data").exists()


class OnlySquared(ExampleMean):
    def __init__(self, tasks):
        super().__init__(tasks)
        if not all(task.is_squared_error for task in tasks.values()):
            raise ValueError("for squared errors")


def test_a_combiner_of_ones_own_is_built_for_the_tasks_that_there_are(config, datasets):
    config = composed("tasks=[msm_bm25]", f"loop.loss._target_={__name__}.OnlySquared")
    check_loop(config)
    one = {"msm_bm25": datasets["msm_bm25"]}
    model = build_model(config, build_body(config), one)
    assert isinstance(build_loop(config, model, one, total_steps=1).loss, OnlySquared)


class TwoArguments(ExampleMean):
    def forward(self, losses):
        return sum(loss.sum() for loss in losses.values())


class NoClosure(torch.optim.SGD):
    def step(self):
        pass


class NoGroups(torch.optim.SGD):
    def __init__(self, lr=0.1):
        pass


def endless(optimizer):
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)


HERE = __name__
NO_SETTINGS = ("~loop.optimizer.weight_decay", "~loop.optimizer.fused")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["loop.loss._target_=no_such_module.X"], "there is no module 'no_such_module'"),
        (["loop.loss._target_=mtlrank.loop.loss.TaskMeen"], "has no 'TaskMeen'. Did you mean 'TaskMean'"),
        ([f"loop.loss._target_={HERE}.TwoArguments"], "TwoArguments.forward takes self, losses; expected"),
        (["loop.loss._target_=torch.nn.Linear"], "loop.loss is a torch.*Linear, expected a mtlrank.*Combiner or"),
        ([f"loop.loss._target_={HERE}.OnlySquared", "+loop.loss.factor=2"], "OnlySquared has no setting 'factor'"),
        (
            [f"loop.loss._target_={HERE}.OnlySquared", "loop.loss._partial_=false"],
            "knows its tasks: add `_partial_: true`",
        ),
        (["loop.optimizer._partial_=false"], "AdamW is built by the program, which knows its params: add `_partial_"),
        (
            [f"loop.optimizer={{_target_: {HERE}.NoGroups}}", *NO_SETTINGS],
            "loop.optimizer cannot be built: .*NoGroups: too",
        ),
        ([f"loop.optimizer={{_target_: {HERE}.NoClosure}}"], "NoClosure.step takes self; expected self, closure"),
        (["+loop.schedule.steps=2"], "linear_warmup has no setting 'steps'"),
        ([f"loop.schedule={{_target_: {HERE}.endless}}"], "endless has no setting 'warmup'. It takes none"),
        (
            [f"loop.schedule={{_target_: {HERE}.endless}}", "~loop.schedule.warmup"],
            "loop.schedule cannot be built: .*endless: got an unexpected",
        ),
    ],
)
def test_a_loop_that_cannot_be_built_is_told_before_data_is_prepared(tmp_path, words, message):
    refused_before_data(tmp_path, words, message)


def refused_before_data(tmp_path, words, message):
    config = composed("tasks=[msm_bm25]", f"data_dir={tmp_path}/data", f"output_dir={tmp_path}/run", *words)
    with pytest.raises(ConfigError, match=message):
        train.run(config)
    assert not (tmp_path / "data").exists()


def test_the_first_token_of_a_decoder_is_not_read(tmp_path):
    folder = decoders.write_decoder(tmp_path / "decoder", "llama")
    body = ["model/body=pretrained", f"model.body.backbone={folder}", "model/heads@model.heads.msm_bm25=cls"]
    complaint = (
        "the first token reads no other: take the last one, model/heads/pooler@model.heads.msm_bm25.pooler=last_token"
    )
    refused_before_data(tmp_path, body, complaint)
    last = "model/heads/pooler@model.heads.msm_bm25.pooler=last_token"
    assert build_body(composed("tasks=[msm_bm25]", *body, last))
    assert build_body(composed("tasks=[msm_bm25]", *body, "model.body.bidirectional=true"))


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("builtins.dict", "loop.loss is a dict, expected a mtlrank.loop.loss.combiner.Combiner"),
        ("tests.test_own_parts.Weighed", r"loop.loss: .*\.Weighed keeps modules or weights in a dict, 'weights'"),
    ],
)
def test_what_is_made_as_a_combiner_is_one(config, datasets, target, told):
    config = composed("tasks=[msm_bm25]", f"loop.loss._target_={target}")
    one = {"msm_bm25": datasets["msm_bm25"]}
    with pytest.raises(ConfigError, match=told):
        build_loop(config, build_model(config, build_body(config), one), one, total_steps=1)


def test_a_datamodule_is_one(datasets):
    with pytest.raises(ConfigError, match=r"datamodule is a tests\S*\.Other, expected a mtlrank\S*MTLDataModule"):
        build_datamodule(composed(f"datamodule._target_={__name__}.Other"), datasets)


class Other:
    def __init__(self, **settings):
        pass


def test_a_layer_deeper_than_the_body_is_named_with_its_head(config):
    heads = {**config["model"]["heads"]}
    heads["msm_ner"] = {**heads["msm_ner"], "pooler": {**heads["msm_ner"]["pooler"], "layers": [7]}}
    with pytest.raises(ConfigError, match="Head 'msm_ner': layer 7 is deeper than the body, which has 3 layers"):
        build_body({**config, "model": {**config["model"], "heads": heads}})


def test_a_pooler_that_compares_two_texts_on_single_texts_is_refused(config, datasets):
    compare = {**config["model"]["heads"]["trec2019"]["pooler"], "_target_": "mtlrank.model.head.pooler.PairProduct"}
    heads = {**config["model"]["heads"], "msm_ner": {**config["model"]["heads"]["trec2019"], "pooler": compare}}
    wrong = {**config, "model": {**config["model"], "heads": heads}}
    with pytest.raises(ConfigError, match="Head 'msm_ner' pools with PairProduct, which compares two texts"):
        build_model(wrong, build_body(config), datasets)


def test_datasets_of_another_tokenizer_are_refused(config, datasets):
    other = {**config, "model": {**config["model"], "body": {**config["model"]["body"], "backbone": "other"}}}
    with pytest.raises(ConfigError, match="The body is 'other', but datasets were prepared for other tokenizers"):
        check_tokenizers(other, datasets)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["training.monitor=val/msm_bm25/Mse"], "Did you mean 'val/msm_bm25/MSE'"),
        (["datamodule.dataset.datasets.msm_bm25.task.measures=null"], "at least one measure"),
        (["loop/loss=static_weights", "loop.loss.weights={nope: 2}"], "names unknown tasks: nope"),
        (
            ["model/heads@model.heads.msm_bm25=span"],
            "pools 1 span with SpanAverage, but its task Regression labels no spans",
        ),
        (
            ["tasks=[msm_ner]", "model/heads@model.heads.msm_ner=cls"],
            "pools no spans with CLSToken, but its task SpanClassification labels 1",
        ),
    ],
)
def test_a_name_that_is_wrong_is_told_before_data_is_prepared(tmp_path, words, complaint):
    refused_before_data(tmp_path, words, complaint)
