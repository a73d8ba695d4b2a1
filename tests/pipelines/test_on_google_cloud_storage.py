"""The pipeline with everything on Google Cloud Storage, in pods that are killed, tried again, and race each other."""

import json
import re
from threading import Barrier

import pytest

from mtlrank.registry import Registry
from mtlrank.storage import list_files, read_bytes, write_bytes
from tests.pipelines.pods import kill_after_a_checkpoint, published, whole

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

WHAT = {"experiment": "embedded", "body": "tiny"}
HOW = {"batch_size": 16, "learning_rate": 1e-3, "epochs": 2, "sampler": "random_proportional", "loss": "example_mean"}
OFTEN = [
    "training.checkpoint_steps=4",
    "training.max_val_queries=20",
    "datamodule.train_sampler.limits={trec2019: 160}",
]
REGISTRY = "gs://bucket/registry"


@pytest.fixture
def dataset(bucket, datasets, data_dir):
    return published(data_dir / "trec2019")


@pytest.fixture
def training(cluster, dataset):
    def start(checkpoints="gs://bucket/checkpoints", **changes):
        fixed = {"seed": 1, "precision": "32-true", "overrides": OFTEN, "checkpoints": checkpoints, "gpus": "0"}
        return cluster("train", datasets=[dataset], tasks=["trec2019"], **WHAT, **{**HOW, **fixed, **changes})

    return start


@pytest.fixture
def promoting(cluster, dataset):
    def start(model, result):
        deciding = {"registry": REGISTRY, "measures": [], "margin": 0.0}
        return cluster("promote", datasets=[dataset], results=[result], model=model, **deciding)

    return start


def judged(cluster, dataset, model):
    """The result of a head; without its intervals, which would say that so short a training is worse than BM25."""
    result = whole(cluster("evaluate", datasets=[dataset], model=model, task="trec2019"))["result"]
    (path,) = (f"{result.uri}/{name}" for name in list_files(result.uri) if name.endswith("metrics.json"))
    known = json.loads(read_bytes(path))
    unknown = {measure: {"value": None, "gain": None} for measure in known["intervals"]}
    write_bytes(path, json.dumps(known | {"intervals": unknown}).encode())
    return result


def weights(model):
    return read_bytes(f"{model.uri}/model/model.safetensors")


def test_a_dataset_is_prepared_once_for_all_runs(cluster):
    def prepare(*shards):
        parts = []
        what = {"task": "msm_ner", **WHAT, "overrides": [], "prepared": "gs://bucket/prepared"}
        for shard in shards:
            step = cluster("prepare", shard=shard, **what)
            parts.append(whole(step)["part"])
        merged = cluster("merge", parts=parts, **what)
        dataset = whole(merged)["dataset"]
        return step.log() + merged.log(), dataset

    first, dataset = prepare("1/2", "2/2")
    again, same = prepare("1/2", "2/2")
    assert "is prepared already" not in first
    assert again.count("msm_ner is prepared already: gs://bucket/prepared/") == 2
    assert read_bytes(f"{same.uri}/manifest.json") == read_bytes(f"{dataset.uri}/manifest.json")


def test_a_killed_training_goes_on_in_another_pod(training):
    kill_after_a_checkpoint(training(), "gs://bucket/checkpoints")
    again = training()
    model = whole(again)["model"]
    assert re.search(r"resuming at epoch \d, step [1-9]", again.log())
    assert weights(model) == weights(whole(training("gs://bucket/undisturbed"))["model"])


def test_a_worse_model_is_not_promoted(cluster, dataset, training, promoting):
    good = whole(training())["model"]
    promoted = whole(promoting(good, judged(cluster, dataset, good)))
    assert promoted["metrics"].metadata["promoted"] == 1
    assert "the first model" in read_bytes(promoted["decision"].uri).decode()
    in_use = Registry(REGISTRY).current()
    assert promoted["decision"].metadata == {"model": in_use, "registry": REGISTRY}
    assert Registry(REGISTRY).history()[0].source.run == good.uri
    assert (good.metadata["tasks"], good.metadata["seed"]) == ("trec2019", 1)
    assert good.metadata["chosen by"] == "val/trec2019/nDCG@10"

    bad = whole(training(learning_rate=1e-9))["model"]
    refused = whole(promoting(bad, judged(cluster, dataset, bad)))
    assert refused["metrics"].metadata["promoted"] == 0
    assert refused["metrics"].metadata["trec2019/nDCG@10 difference"] < 0
    assert "may be worse by more than 0" in read_bytes(refused["decision"].uri).decode()
    assert Registry(REGISTRY).current() == in_use


def test_of_two_promotions_at_once_exactly_one_wins(cluster, dataset, training, promoting, bucket):
    models = [whole(training(seed=seed, epochs=1))["model"] for seed in (1, 2)]
    results = [judged(cluster, dataset, model) for model in models]
    together, first_reads = Barrier(2, timeout=300), iter(range(2))

    def before(request):
        if request.startswith("GET") and "current.json" in request and next(first_reads, None) is not None:
            together.wait()  # both decide on the same history

    bucket.before = before
    pods = [promoting(model, result) for model, result in zip(models, results, strict=True)]
    codes = [pod.ends() for pod in pods]
    assert sorted(code == 0 for code in codes) == [False, True], [pod.log() for pod in pods]
    changes = Registry(REGISTRY).history()
    assert len(changes) == 1
    (loser,) = [number for number, code in enumerate(codes) if code != 0]
    assert "Another model was promoted" in pods[loser].log()
    decided = whole(promoting(models[loser], results[loser]))  # as the pipeline tries again
    assert "in use, " in read_bytes(decided["decision"].uri).decode()
