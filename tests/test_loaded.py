"""A head in a program: the same scores as the command's, in the order of the pairs."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mtlrank
from mtlrank import loaded, rank
from mtlrank.errors import ConfigError, DataError
from mtlrank.registry import Registry
from mtlrank.storage import write_manifest
from tests.exports import save
from tests.saved_models import composed, save_random, settings
from tests.tiny_collection import write

WORDS = ["silent", "harbour", "garden", "letter", "winter", "stone", "river", "lantern"]


@pytest.fixture(scope="module")
def model(tmp_path_factory, config, datasets):
    return save_random(tmp_path_factory.mktemp("run") / "model", config, datasets, spread=5.0)


@pytest.fixture(scope="module")
def scorer(model):
    return mtlrank.load(model, "trec2019")


def pairs(number):
    """Short and long ones in no order, some longer than the model reads, and one with a control character."""
    texts = [" ".join(WORDS[(i + j) % 8] for j in range(1 + i * 7 % 300)) for i in range(number)]
    return [(f"{WORDS[i % 8]} {WORDS[i % 5]}", f"{text}\x07 end") for i, text in enumerate(texts)]


def ranked(model, tmp_path, given, head):
    """The scores that the command gives."""
    lines = [f"q{i}\td{i}\t{query}\t{text}" for i, (query, text) in enumerate(given)]
    write(tmp_path / "pairs.tsv", lines)
    output = tmp_path / "out.tsv"
    rank.run(settings("rank", model_dir=model, head=head, input=tmp_path / "pairs.tsv", output=output))
    return np.array([float(line.split("\t")[2]) for line in output.read_text().splitlines()])


@pytest.mark.parametrize("head", ["trec2019", "msm_sem_sim"])
def test_scores_are_those_of_the_command_in_the_order_of_the_pairs(model, tmp_path, head, monkeypatch):
    given = pairs(150)
    for module in (rank, loaded):
        monkeypatch.setattr(module, "CHUNK", 64)
    found = mtlrank.load(str(model.parent), head).score(iter(given))  # the folder of the run
    assert (found.shape, found.dtype) == ((150,), np.float32)
    assert found.std() > 0.01
    np.testing.assert_allclose(found, ranked(model, tmp_path, given, head), rtol=0, atol=1e-6)


def test_it_says_what_it_is(model, scorer):
    assert repr(scorer) == f"<LoadedHead 'trec2019', a ranking head of {model}>"


def test_batches_change_scores_by_rounding_only(scorer):
    given = pairs(20)
    np.testing.assert_allclose(scorer.score(given, batch_size=3), scorer.score(given), rtol=0, atol=1e-5)
    np.testing.assert_array_equal(scorer.score([]), np.zeros(0))


def test_the_model_in_use_of_a_registry_is_loaded(model, tmp_path, scorer):
    entry = tmp_path / "entry"
    shutil.copytree(model, entry / "model")
    write_manifest(entry, {"kind": "registered model"})
    registry = Registry(tmp_path / "registry")
    registry.promote(registry.publish(entry), "", registry.history())
    again = mtlrank.load(tmp_path / "registry", "trec2019")
    np.testing.assert_array_equal(again.score(pairs(3)), scorer.score(pairs(3)))


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ([("a", "b"), ("c", " ")], r"^pairs\[1\]: expected text, but the text is empty."),
        ([("a", None)], r"^pairs\[0\]: expected two texts, a query and a passage, found \('a', None\).$"),
        ([("a", "b", "c")], r"^pairs\[0\]: expected two texts"),
        (("a query", "a passage"), r"^pairs\[0\]: expected two texts, a query and a passage, found 'a query'.$"),
        ([("a", "b"), ("a", "\u00ad")], r"^pairs\[1\]: expected text, found one without tokens."),
    ],
)
def test_what_is_no_pair_is_told_with_its_place(scorer, given, complaint):
    with pytest.raises(DataError, match=complaint):
        scorer.score(given)


def test_tables_give_texts_spans_and_numbers_of_numpy(model, scorer):
    given = pairs(3)
    expected = scorer.score(given)
    np.testing.assert_array_equal(scorer.score(np.array(given, dtype=object)), expected)
    np.testing.assert_array_equal(scorer.score(given, batch_size=np.int64(128)), expected)
    assert scorer.predict(np.array(given)) == scorer.predict(given)
    entities = mtlrank.load(model, "msm_ner")
    plain = {"id": 3, "text": "the harbour", "spans": [(4, 11)]}
    table = {"id": np.int64(3), "text": np.str_("the harbour"), "spans": np.array([[4, 11]])}
    assert entities.predict([table]) == entities.predict([plain])


@pytest.mark.parametrize("call", ["score", "predict"])
def test_nothing_is_no_list(scorer, call):
    with pytest.raises(DataError, match="^(pairs|texts): expected a list, found None.$"):
        getattr(scorer, call)(None)


def test_mistakes_in_settings_are_told(model, scorer):
    with pytest.raises(ConfigError, match=r"config.json is a file: expected the folder of a finished run"):
        mtlrank.load(model / "config.json")
    with pytest.raises(ConfigError, match="^head is 3, expected the name of a head.$"):
        mtlrank.load(model, 3)
    with pytest.raises(ConfigError, match="no head 'trec2091'. Did you mean 'trec2019'"):
        mtlrank.load(model, "trec2091")
    with pytest.raises(ConfigError, match="batch_size is 0, expected a whole number, at least 1."):
        scorer.score([], batch_size=0)


def test_a_head_needs_no_name_where_only_one_is_there_or_scores_pairs(tmp_path, config, datasets):
    for tasks, expected in (
        (["msm_ner"], "msm_ner"),
        (["msm_ner", "trec2019"], "trec2019"),
        (["msm_ner", "msm_coref"], ""),
    ):
        chosen = composed(f"tasks=[{','.join(tasks)}]")
        folder = save_random(tmp_path / "-".join(tasks), chosen, {key: datasets[key] for key in tasks})
        if not expected:
            with pytest.raises(ConfigError, match="^Which head. Choose one with head=... Heads: msm_ner, msm_coref.$"):
                mtlrank.load(folder)
            continue
        found, named = (mtlrank.load(folder, head) for head in (None, expected))
        asked = [("a", "b")] if expected == "trec2019" else [{"text": "the harbour", "spans": [[4, 11]]}]
        assert found.predict(asked) == named.predict(asked)


def test_a_head_on_single_texts_scores_no_pairs(tmp_path):
    """A regression's, whose numbers for pairs would mean nothing."""
    model = save(tmp_path, "bert", "+datamodule.dataset.datasets.msm_sem_sim.columns=[1]")
    complaint = "^Head 'msm_sem_sim' reads single texts and does not score a query and a passage"
    with pytest.raises(ConfigError, match=f"{complaint}: use `predict`"):
        mtlrank.load(model, "msm_sem_sim").score([("a", "b")])
    with pytest.raises(ConfigError, match=f"{complaint}. Heads .*: trec2019. `mtlrank predict` uses any head"):
        ranked(model, tmp_path, [("a", "b")], "msm_sem_sim")
    assert list(mtlrank.load(model, "msm_sem_sim").predict(["a text"])[0]) == ["score"]
    assert mtlrank.load(model).score([("a", "b")]).shape == (1,)


def test_a_model_that_names_code_needs_trust(tmp_path, config, datasets, monkeypatch):
    (tmp_path / "my_average.py").write_text(
        "from mtlrank.model.head.pooler import Average\n\n\nclass Mine(Average):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    heads = config["model"]["heads"]
    pooler = {**heads["trec2019"]["pooler"], "_target_": "my_average.Mine"}
    changed = {**heads, "trec2019": {**heads["trec2019"], "pooler": pooler}}
    folder = save_random(tmp_path / "model", {**config, "model": {**config["model"], "heads": changed}}, datasets)
    with pytest.raises(ConfigError, match="add trust_model=true"):
        mtlrank.load(folder, "trec2019")
    assert mtlrank.load(folder, "trec2019", trust_model=True).score(pairs(2)).shape == (2,)


def test_importing_mtlrank_loads_nothing_else():
    program = (
        "import sys, mtlrank; print([m for m in sys.modules if m.startswith('mtlrank.') or m in ('torch', 'numpy')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_function_of_the_page_scores_the_rows_of_a_frame(scorer):
    """PyTerrier itself is not installed: its `doc_score` calls the function with a frame of some rows."""
    pandas = pytest.importorskip("pandas")
    page = (Path(__file__).parent.parent / "docs" / "export.md").read_text()
    names = {"model": scorer}
    exec(re.search(r"^def score.*?\n\n", page, re.DOTALL | re.MULTILINE)[0], names)
    given = pairs(5)
    frame = pandas.DataFrame(given, columns=["query", "text"])
    np.testing.assert_array_equal(names["score"](frame.iloc[::-1]), scorer.score(given[::-1]))
