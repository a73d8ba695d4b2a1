"""Promoting where the model in use was judged on other topics, and is judged again."""

import re
import shutil

import pytest
from safetensors.torch import load_file, save_file

from mtlrank import evaluate, promote
from mtlrank.about import WEIGHTS
from mtlrank.composing.selection import select_tasks
from mtlrank.errors import ConfigError, DataError
from mtlrank.evaluation.judged_head import head_folders
from mtlrank.registry import Registry
from mtlrank.storage import file_hash, read_json, write_json, write_manifest
from tests.evaluation.judged_runs import write_ranking
from tests.saved_models import save_random, settings

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own


@pytest.fixture(scope="module")
def trained(tmp_path_factory, config, datasets):
    """A model with random weights, judged on the embedded test set."""
    root = tmp_path_factory.mktemp("trained")
    one = select_tasks({**config, "tasks": ["trec2019"]})
    save_random(root / "model", one, {"trec2019": datasets["trec2019"]})
    evaluate.run(
        settings("evaluate", model_dir=root / "model", output_dir=root / "evaluation", data_dir=config["data_dir"])
    )
    # As if random weights were not worse than the first stage.
    judged = root / "evaluation" / "trec2019" / "metrics.json"
    known = read_json(judged)["intervals"]
    write_json(judged, read_json(judged) | {"intervals": {key: each | {"gain": None} for key, each in known.items()}})
    return root


def judged_on_less(trained, model, tmp_path):
    """A model that ranks like `trained`, as if it had been judged on the first twenty queries, as good as its baseline."""
    rows = (trained / "evaluation" / "trec2019" / "per_query.tsv").read_text().splitlines()[1:]
    values = {q: float(v) for q, m, v, _ in (row.split("\t") for row in rows) if m == "nDCG@10"}
    first = dict(list(values.items())[:20])
    weights = file_hash(model / WEIGHTS)
    write_ranking(tmp_path / "less" / "trec2019", first, first, measure="nDCG@10", weights=weights)
    return head_folders([tmp_path / "less"])


@pytest.fixture
def shifted(trained, tmp_path):
    """Another model that ranks alike: all its scores are one more."""
    folder = shutil.copytree(trained / "model", tmp_path / "shifted")
    weights = load_file(folder / WEIGHTS)
    (bias,) = [name for name, weight in weights.items() if name.startswith("heads.") and weight.shape == (1,)]
    save_file({**weights, bias: weights[bias] + 1}, folder / WEIGHTS)
    write_manifest(folder, {"kind": "model", "heads": ["trec2019"]})
    return folder


def test_a_model_judged_on_other_topics_is_judged_again(trained, shifted, datasets, tmp_path, capsys):
    registry, measure = Registry(tmp_path / "registry"), ["trec2019/nDCG@10"]
    promote.run(shifted, judged_on_less(trained, shifted, tmp_path), registry, measure)
    heads = head_folders([trained / "evaluation"])
    with pytest.raises(DataError, match="test sets of trec2019 differ"):
        promote.run(trained / "model", heads, registry, measure)
    decision = promote.run(
        trained / "model", heads, registry, measure, prepared={"trec2019": datasets["trec2019"].folder}
    )
    assert decision.promoted
    assert decision.comparisons[0].difference == pytest.approx(0)
    assert "judging the model in use again" in capsys.readouterr().err


def test_only_heads_that_decide_are_judged_again(trained, config, datasets, tmp_path, capsys):
    """Another task's test data may have changed so that the model in use cannot be judged on it."""
    registry, measure = Registry(tmp_path / "registry"), ["trec2019/nDCG@10"]
    both = {key: datasets[key] for key in ("trec2019", "msm_ner")}
    two = select_tasks({**config, "tasks": list(both)})
    runs = [tmp_path / "used", tmp_path / "new"]
    for seed, run in enumerate(runs):
        save_random(run / "model", two, both, seed=seed)
        words = {"model_dir": run / "model", "output_dir": run / "evaluation", "data_dir": config["data_dir"]}
        evaluate.run(settings("evaluate", **words))
    (of_tags, _), heads = head_folders([run / "evaluation" for run in runs[:1]]), head_folders([runs[1] / "evaluation"])
    promote.run(runs[0] / "model", [of_tags, *judged_on_less(trained, runs[0] / "model", tmp_path)], registry, measure)
    prepared = {"trec2019": datasets["trec2019"].folder, "msm_ner": tmp_path / "not looked at"}
    decision = promote.run(runs[1] / "model", heads, registry, measure, prepared=prepared)
    assert [f"{each.head}/{each.measure}" for each in decision.comparisons] == measure
    assert "judging the model in use again" in capsys.readouterr().err


def test_the_same_weights_with_other_settings_change_nothing(trained, tmp_path, capsys):
    registry, heads = Registry(tmp_path / "registry"), head_folders([trained / "evaluation"])
    promote.run(trained / "model", heads, registry, [])
    same = shutil.copytree(trained / "model", tmp_path / "same")
    write_json(same / "config.json", {**read_json(same / "config.json"), "seed": 7})
    write_manifest(same, {"kind": "model", "heads": ["trec2019"]})
    assert promote.run(same, heads, registry, []).promoted
    assert re.search(r"(\w+) is in use already, with the same weights as (?!\1)\w+", capsys.readouterr().err)
    assert len(registry.history()) == 1


def test_with_another_tokenizer_it_cannot_be(trained, shifted, tmp_path):
    registry, measure = Registry(tmp_path / "registry"), ["trec2019/nDCG@10"]
    promote.run(shifted, judged_on_less(trained, shifted, tmp_path), registry, measure)
    prepared = {"trec2019": tmp_path / "prepared"}
    write_json(prepared["trec2019"] / "manifest.json", {"tokenizer": {"sha256": "another"}})
    with pytest.raises(DataError, match="its tokenizer differs"):
        promote.run(trained / "model", head_folders([trained / "evaluation"]), registry, measure, prepared=prepared)


@pytest.mark.parametrize(
    ("where", "setting", "told"),
    [
        ((), {"bm25_in_text": 20}, "bm25_in_text was 20 and is None now"),
        (("preprocessor",), {"template": "{query} of {text}"}, "template was '{query} of {text}' and is None now"),
        (("preprocessor",), {"max_length": 128}, "max_length was 128 and is 256 now"),
    ],
)
def test_on_texts_that_are_read_in_another_way_it_cannot_be(trained, shifted, datasets, tmp_path, where, setting, told):
    config = read_json(shifted / "config.json")
    node = config["datamodule"]["dataset"]["datasets"]["trec2019"]
    for key in where:
        node = node[key]
    node.update(setting)
    write_json(shifted / "config.json", config)
    write_manifest(shifted, {"kind": "model", "heads": ["trec2019"]})
    registry, measure = Registry(tmp_path / "registry"), ["trec2019/nDCG@10"]
    promote.run(shifted, judged_on_less(trained, shifted, tmp_path), registry, measure)
    prepared = {"trec2019": datasets["trec2019"].folder}
    with pytest.raises(DataError, match=re.escape(f"cannot be judged on trec2019 as it was prepared: {told}. Compare")):
        promote.run(trained / "model", head_folders([trained / "evaluation"]), registry, measure, prepared=prepared)


def test_the_model_in_use_is_judged_by_the_registrys_name(trained, config, tmp_path):
    promote.of_run(trained, Registry(tmp_path / "registry"))
    known = {"model_dir": tmp_path / "registry", "data_dir": config["data_dir"]}
    with pytest.raises(
        ConfigError, match="is not a local model folder: choose a folder for the results with output_dir"
    ):
        evaluate.run(settings("evaluate", **known))
    values = evaluate.run(settings("evaluate", **known, output_dir=tmp_path / "again"))
    assert (
        values["test/trec2019/nDCG@10"]
        == read_json(trained / "evaluation" / "trec2019" / "metrics.json")["values"]["nDCG@10"]
    )
