"""Heads that several tasks share."""

import functools
import itertools
import shutil
from copy import copy

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, BertConfig

import mtlrank
from mtlrank import evaluate, train
from mtlrank.backbone import load_classifier
from mtlrank.building.model import build_body, build_model, build_saved_model
from mtlrank.composing.compose import compose_config
from mtlrank.composing.selection import select_tasks
from mtlrank.errors import ConfigError
from mtlrank.model.body import MTLBody
from mtlrank.model.head import Linear, cross_encoder
from mtlrank.model.head.pooler import Average
from mtlrank.model.multitask import MultiTaskModel
from mtlrank.trained_head import load_head
from tests.batches import batch
from tests.exports import write_classifier
from tests.loop import runs
from tests.loop.test_processes import NO_DROPOUT, TORCHRUN, TWO
from tests.saved_models import composed, settings

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own
SLOW = "loop.optimizer.lr=1e-30"  # weights stay
PLACE = "datamodule.dataset.datasets.trec_lambda"
SECOND = [  # the same data once more, learnt with another loss
    f"+datamodule/dataset@{PLACE}=trec2019",
    f"{PLACE}.name=trec_lambda",
    f"task@{PLACE}.task=relevance_lambda",
    "+model/heads@model.heads.trec_lambda=shared",
    "model.heads.trec_lambda.of=trec2019",
    "tasks=[trec2019,msm_ner,trec_lambda]",
    "datamodule.train_sampler.limits={trec2019: 30, trec_lambda: 30, msm_ner: 30}",
]


def shared(**of):
    """Words that make heads those of other tasks."""
    return [
        word
        for key, other in of.items()
        for word in (f"model/heads@model.heads.{key}=shared", f"model.heads.{key}.of={other}")
    ]


def heads(*words):
    return select_tasks(compose_config(words, trusted=True))["model"]["heads"]


def test_the_task_that_others_name_has_the_head_or_the_first_of_these():
    own = heads()["msm_bm25"]
    words = shared(trec2019="msm_bm25", msm_sem_sim="trec2019")
    of = {"of": "msm_bm25"}
    found = heads(*words)
    assert [found[key] for key in ("trec2019", "msm_bm25", "msm_sem_sim")] == [of, own, of]
    assert heads(*words, "tasks=[msm_sem_sim,trec2019]") == {"msm_sem_sim": own, "trec2019": {"of": "msm_sem_sim"}}
    assert heads(*words, "tasks=[msm_sem_sim]") == {"msm_sem_sim": own}
    assert heads(*words, "datamodule/dataset=trec2019") == {"trec2019": own}


def test_choosing_twice_changes_nothing_of_it():
    config = select_tasks(
        compose_config([*shared(trec2019="msm_bm25"), "tasks=[msm_ner,trec2019,msm_bm25]"], trusted=True)
    )
    assert select_tasks(config) == config


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (
            shared(trec2019="msm_bm52"),
            r"model.heads.trec2019.of is 'msm_bm52', expected a task .* Did you mean 'msm_bm25'",
        ),
        (
            shared(trec2019="trec2019"),
            "model.heads.trec2019.of is 'trec2019', which leads back to it: one of trec2019 needs",
        ),
        (
            shared(trec2019="msm_bm25", msm_bm25="trec2019"),
            "model.heads.msm_bm25.of is 'trec2019', which leads back to it: one of",
        ),
        (["model/heads@model.heads.trec2019=shared"], "model.heads.trec2019.of has no value"),
    ],
)
def test_a_head_of_no_other_task_is_refused(words, complaint):
    with pytest.raises(ConfigError, match=complaint):
        heads(*words)


@pytest.mark.parametrize(
    ("of", "complaint"),
    [
        (
            {"msm_ner": "msm_coref"},
            "'msm_ner' and 'msm_coref' share a head, .*: classes of 1 span and classes of 2 spans",
        ),
        (
            {"msm_ner": "trec2019"},
            "'msm_ner' and 'trec2019' share a head, .* 1 span and 1 score. Give one of them its own",
        ),
    ],
)
def test_tasks_whose_outputs_mean_other_things_share_no_head(of, complaint):
    """Which is told before data is prepared."""
    config = select_tasks(compose_config(shared(**of), trusted=True))
    with pytest.raises(ConfigError, match=complaint):
        build_body(config)


def test_tasks_with_other_classes_share_no_head(datasets):
    words = [*shared(msm_ner="msm_coref"), "model.heads.msm_coref.pooler.num_spans=1"]
    config = select_tasks(compose_config(words, trusted=True))
    ner, other = copy(datasets["msm_ner"]), copy(datasets["msm_ner"])
    other.task = copy(ner.task)
    other.name, other.task.classes = "msm_coref", ["PER", "LOC"]
    with pytest.raises(
        ConfigError, match="the classes DATE, LOC, ORG, PER, WORK of 1 span and the classes PER, LOC of 1"
    ):
        build_model(
            config,
            build_body(select_tasks(compose_config([], trusted=True))),
            {"msm_ner": ner, "msm_coref": other},
        )


def test_a_published_head_takes_its_weights_once(tmp_path, monkeypatch, capsys):
    """Whichever of its tasks comes first."""
    checkpoint = write_classifier(tmp_path / "checkpoint", "bert", num_labels=1)
    loaded = []
    monkeypatch.setattr(cross_encoder, "load_classifier", lambda name: loaded.append(name) or load_classifier(name))
    words = ["model/body=pretrained", f"model.body.backbone={checkpoint}", *SECOND]
    words += ["model/heads@model.heads.trec2019=cross_encoder"]
    for tasks in ("trec2019,trec_lambda", "trec_lambda,trec2019"):
        config = composed(*words, f"tasks=[{tasks}]", "datamodule.train_sampler.limits=null")
        model = build_saved_model(config, {"trec2019": {}, "trec_lambda": {}})
        assert loaded == [str(checkpoint)]
        assert f"the head trec2019 starts as the classifier of {checkpoint}\n" in (said := capsys.readouterr().err)
        assert said.count("starts as the classifier") == 1
        published = load_file(checkpoint / "model.safetensors")["classifier.weight"]
        assert model.head("trec_lambda").projection[-1].weight.equal(published)
        loaded.clear()


@pytest.fixture
def models(tmp_path):
    """Two models with equal weights: one whose tasks a and b share a head, one whose tasks have one each."""
    config = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    AutoModel.from_config(config).save_pretrained(tmp_path)

    def head(output_dim):
        torch.manual_seed(1)
        return Linear(16, 2, output_dim, functools.partial(Average, layers=[1]), dropout=0.0)

    one = head(1)
    bodies = MTLBody(str(tmp_path)), MTLBody(str(tmp_path))
    sharing = MultiTaskModel(bodies[0], {"a": one, "b": "a", "c": head(3)})
    apart = MultiTaskModel(bodies[1], {"a": head(1), "b": head(1), "c": head(3)})
    return sharing.eval(), apart.eval()


def test_a_shared_head_learns_from_all_of_its_tasks(models):
    sharing, apart = models
    data = {"a": batch([4, 6]), "b": batch([5, 3, 8]), "c": batch([7])}
    for model in models:
        sum(logits.square().sum() for logits in model(data).values()).backward()
    for weight, first, second in zip(
        *(head.parameters() for head in (sharing.head("a"), apart.head("a"), apart.head("b"))), strict=True
    ):
        assert weight.grad.abs().max() > 0
        torch.testing.assert_close(weight.grad, first.grad + second.grad)
    assert sharing.shared == {"b": "a"}
    assert not apart.shared


def test_a_shared_head_is_idle_only_without_all_of_its_tasks(models):
    sharing, _ = models
    names = {id(weight): name for name, weight in sharing.named_parameters()}
    for present in itertools.chain.from_iterable(itertools.combinations("abc", number) for number in (1, 2)):
        sharing.zero_grad()
        logits = sharing({name: batch([4, 6]) for name in present})
        sum(value.square().sum() for value in logits.values()).backward()
        unreached = {name for name, weight in sharing.named_parameters() if weight.grad is None}
        assert {names[id(weight)] for weight in sharing.idle(present)} == unreached


@pytest.fixture(scope="module")
def trained(data_dir, tmp_path_factory):
    """The folder of a run that was stopped once."""
    output = tmp_path_factory.mktemp("run")
    config = runs.settings(data_dir, output, *SECOND)
    runs.run_until(config, 13)
    train.run(config)
    return output


@pytest.mark.slow
def test_a_run_goes_on_to_the_bit(data_dir, trained, tmp_path):
    train.run(runs.settings(data_dir, tmp_path, *SECOND))
    whole = runs.content(tmp_path)
    runs.assert_same(whole, runs.content(trained))
    weights = whole["state_dict"]
    first = {name: weight for name, weight in weights.items() if ".heads.trec2019." in name}
    assert first
    assert all(weights[name.replace("trec2019", "trec_lambda")].equal(weight) for name, weight in first.items())
    known = sum(len(group["params"]) for group in whole["optimizer_states"][0]["param_groups"])
    head = len(load_head(trained / "model", "trec2019").module.state_dict())
    assert known == len([name for name in weights if "position_ids" not in name]) - head  # each weight once


def test_a_saved_head_has_both_names(trained):
    pairs = [("a query", "a passage"), ("another", "one more passage")]
    first, second = (mtlrank.load(trained, head=name).score(pairs) for name in ("trec2019", "trec_lambda"))
    assert first.tolist() == second.tolist()
    assert len(set(first.tolist())) == 2


def test_each_of_its_tasks_is_judged(data_dir, trained, tmp_path):
    metrics = evaluate.run(
        settings("evaluate", model_dir=trained / "model", data_dir=data_dir, output_dir=tmp_path, tasks="[trec_lambda]")
    )
    assert {key.split("/")[1] for key in metrics} == {"trec_lambda"}


def test_training_starts_from_a_shared_head_with_and_without_sharing(data_dir, trained):
    saved = load_head(trained / "model", "trec2019").module.state_dict()
    start = f"model.start_from={trained / 'model'}"
    alone = ["tasks=[trec_lambda]", "datamodule.train_sampler.limits=null"]
    for more, name in (
        (["tasks=[trec2019,msm_ner]"], "trec2019"),
        ([*SECOND, *alone], "trec_lambda"),
        (SECOND, "trec_lambda"),
    ):
        config = select_tasks(runs.settings(data_dir, data_dir / "output", *more, start))
        datasets = train.prepare.run(config, None)
        model = build_model(config, build_body(config), datasets)
        assert all(weight.equal(saved[key]) for key, weight in model.head(name).state_dict().items())


@pytest.fixture(scope="module")
def apart(data_dir, tmp_path_factory):
    """A run of the same tasks with a head for each."""
    output = tmp_path_factory.mktemp("apart")
    words = [word for word in SECOND if "shared" not in word and ".of=" not in word]
    own = "+model/heads@model.heads.trec_lambda=average"
    train.run(runs.settings(data_dir, output, *words, own, "training.epochs=1", SLOW))
    return output


@pytest.mark.parametrize("tasks", ["[trec2019,trec_lambda]", "[trec_lambda,trec2019]"])
def test_a_shared_head_starts_as_that_of_the_task_that_is_named(data_dir, apart, tasks, capsys):
    saved = load_head(apart / "model", "trec2019").module.state_dict()
    start = f"model.start_from={apart / 'model'}"
    config = select_tasks(runs.settings(data_dir, data_dir / "output", *SECOND, f"tasks={tasks}", start))
    model = build_model(config, build_body(config), train.prepare.run(config, None))
    assert all(weight.equal(saved[key]) for key, weight in model.head("trec_lambda").state_dict().items())
    assert "its heads trec2019; new heads: none" in "".join(capsys.readouterr())


def test_a_run_that_starts_over_shares_the_head_that_is_named(data_dir, apart, tmp_path, capsys):
    saved = load_head(apart / "model", "trec2019").module.state_dict()
    output = shutil.copytree(apart, tmp_path / "run")
    more = ["training.epochs=1", "training.accept_changes=[heads]", SLOW]
    train.run(runs.settings(data_dir, output, *SECOND, *more))
    assert "starting over with the weights of" in "".join(capsys.readouterr())
    assert all(
        weight.equal(saved[key]) for key, weight in load_head(output / "model", "trec2019").module.state_dict().items()
    )


def test_a_checkpoint_of_a_shared_head_is_not_continued_with_one_each(data_dir, trained, tmp_path):
    apart = ["model/heads@model.heads.trec_lambda=trec2019"]
    words = [word for word in SECOND if "model" not in word.split(".")[0] and "heads" not in word]
    config = runs.settings(
        data_dir, trained, *words, f"+{apart[0]}", "training.epochs=4", "training.accept_changes=[epochs]"
    )
    with pytest.raises(ConfigError, match="model.heads.trec_lambda"):
        train.run(config)


def test_gradients_are_combined_with_a_shared_head(data_dir, tmp_path):
    config = runs.settings(data_dir, tmp_path, *SECOND, "loop/loss=gradnorm", "training.epochs=1")
    metrics = train.run(config)
    assert {key.split("/")[1] for key in metrics} == {"trec2019", "msm_ner", "trec_lambda"}


@pytest.mark.slow
def test_two_processes_teach_a_shared_head_as_one_does(data_dir, tmp_path):
    more = [*SECOND, *NO_DROPOUT, "training.epochs=1"]
    train.run(runs.settings(data_dir, tmp_path / "one", *more, "training.batch_size=6"))
    two = [*more, *TWO, "training.batch_size=3"]
    code, said = runs.finish(*runs.words(data_dir, tmp_path / "two", *two), launcher=TORCHRUN)
    assert code == 0, said
    one, other = (runs.content(tmp_path / name)["state_dict"] for name in ("one", "two"))
    for name, weight in one.items():
        torch.testing.assert_close(other[name], weight, atol=2e-4, rtol=1e-3, msg=name)
