"""Documents that are longer than fits: read in passages, and the best one counts, wherever they are scored."""

import copy
from itertools import islice, pairwise

import numpy as np
import pytest
import torch

import mtlrank
from mtlrank import compare, evaluate, export, rank, train
from mtlrank.batch import Record
from mtlrank.composing.compose import compose_config
from mtlrank.datamodule.preprocessor import Lengths, Preprocessor
from mtlrank.errors import ConfigError
from mtlrank.model.head import Linear
from mtlrank.model.head.pooler import CLSToken
from mtlrank.probing.vectors import read_vectors
from mtlrank.task import Buckets, Regression, Relevance, RelevanceClasses, SpanClassification
from mtlrank.trained_head import load_head
from tests.batches import batch
from tests.datamodule.dataset.test_prepared import TINY, prepared
from tests.saved_models import save_random, settings
from tests.tiny_collection import write

WORDS = ["silent", "harbour", "garden", "letter", "winter", "stone", "river", "lantern", "bridge", "market"]


@pytest.fixture(scope="module")
def tokens():
    """The tokens of some texts."""
    return Preprocessor(TINY).load().ids


def document(tokens, length, start=0):
    """A text of so many tokens, no two neighbours alike."""
    known = [word for word in WORDS if len(tokens([word])[0]) == 1]
    assert len(known) > 3
    return " ".join(known[(start + i + i // len(known)) % len(known)] for i in range(length))


def pair(text, **changes):
    return Record("q", "d", "who", text, 1.0)._replace(**changes)


# Of 20 tokens, [CLS] who [SEP] .. [SEP] leave room for 16 of the document; the next passage begins 8 later.
SMALL = {"max_length": 20, "max_query_length": 6, "max_passages": 3}


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (5, [(0, 5)]),
        (16, [(0, 16)]),
        (17, [(0, 16), (8, 17)]),
        (24, [(0, 16), (8, 24)]),
        (25, [(0, 16), (8, 24), (16, 25)]),
        (60, [(0, 16), (8, 24), (16, 32)]),
    ],
)
def test_passages_are_windows_over_the_tokens(tmp_path, tokens, length, expected):
    text = document(tokens, length)
    split = prepared(tmp_path, Regression(["MSE"]), [pair(text)], **SMALL).split("train")
    read = split.collate([0])
    ids, (query,) = tokens([text])[0], tokens(["who"])
    ends = read.cu_seqlens.tolist()
    found = [read.input_ids[a:b].tolist() for a, b in pairwise(ends)]
    assert [passage[len(query) + 2 : -1] for passage in found] == [ids[a:b].tolist() for a, b in expected]
    assert {tuple(passage[: len(query) + 2]) for passage in found} == {tuple(found[0][: len(query) + 2])}
    assert split.lengths().tolist() == [len(read.input_ids)]
    assert len(read.labels) == 1
    assert read.item_sequence.tolist() == list(range(len(expected)))
    assert read.max_passages == len(expected)
    if len(expected) == 1:
        assert read.passage_item is None
    else:
        assert read.passage_item.tolist() == [0] * len(expected)


def test_documents_in_groups_keep_their_passages_together(tmp_path, tokens):
    records = [pair(document(tokens, n), doc_id=f"d{n}", label=n % 2, group=0) for n in (30, 4, 20)]
    records.append(pair("garden", doc_id="d1", group=1))
    split = prepared(tmp_path, Relevance(["AP"]), records, **SMALL).split("train")
    read = split.collate([1, 0])
    assert read.passage_item.tolist() == [0, 1, 1, 1, 2, 3, 3]
    assert read.item_sequence.tolist() == list(range(7))
    assert read.item_sample.tolist() == [0, 1, 1, 1]
    assert read.labels.tolist() == [1, 0, 0, 0]
    assert read.max_items == 3
    assert read.max_passages == 3


def test_training_may_read_the_start_of_documents_only(tmp_path, tokens):
    records = [pair(document(tokens, 60))]
    dataset = prepared(tmp_path, Regression(["MSE"]), records, test=records, **SMALL, train_passages=1)
    assert dataset.split("train").collate([0]).max_passages == 1
    assert dataset.split("test").collate([0]).max_passages == 3


def test_a_document_is_cut_where_its_last_passage_ends(tmp_path, tokens):
    records = [pair(document(tokens, n), doc_id=f"d{n}", label=n) for n in (16, 32, 33, 80)]
    dataset = prepared(tmp_path, Regression(["MSE"]), records, **SMALL)
    assert dataset.manifest["splits"]["train"]["sequences_cut"] == 2
    kept = np.diff(np.load(dataset.folder / "shard-1-of-1" / "token_offsets.npy"))
    assert sorted(kept.tolist()) == [1, 16, 32, 33, 40]  # the query's, and what a document without one could fill


def test_documents_that_only_begin_alike_are_told_apart(tmp_path, tokens):
    text = document(tokens, 20)
    records = [pair(text, doc_id="d1"), pair(f"{text} garden", doc_id="d2", label=2), pair(text, doc_id="d3")]
    first, second, third = prepared(tmp_path, Regression(["MSE"]), records, **SMALL).split("train").digests()
    assert first == third != second


@pytest.mark.parametrize(("stride", "expected"), [(0.5, [4, 1]), (1, [8, 1]), (0.01, [1, 1])])
def test_strides_are_a_share_of_the_room(stride, expected):
    assert Lengths(20, 6, 3, stride).strides(np.array([8, 1])).tolist() == expected


def test_the_best_passage_is_the_document_and_learns_alone():
    torch.manual_seed(1)
    read = batch([3] * 5, item_sequence=[0, 1, 2, 3, 4], item_sample=[0, 0, 1, 1, 1])
    read = read._replace(
        labels=torch.zeros(2), item_sample=torch.tensor([0, 0]), passage_item=torch.tensor([0, 0, 0, 1, 1])
    )
    head = Linear(8, 1, 1, CLSToken, dropout=0.0).eval()
    states = torch.randn(5, 8, requires_grad=True)
    single = head([states], read._replace(labels=torch.zeros(5), passage_item=None))[:, 0]
    found = head([states], read._replace(max_passages=3))
    assert found.shape == (2, 1)
    assert found[:, 0].tolist() == [single[:3].max().item(), single[3:].max().item()]
    found.sum().backward()
    moved = states.grad.abs().sum(1).nonzero()[:, 0].tolist()
    assert moved == [int(single[:3].argmax()), 3 + int(single[3:].argmax())]


def test_a_head_of_ones_own_may_make_a_document_of_its_passages_in_another_way():
    class Mean(Linear):
        def of_passages(self, logits, batch):
            total = logits.new_zeros(len(batch.labels), 1).index_add(0, batch.passage_item, logits)
            return total / batch.passage_item.bincount()[:, None]

    read = batch([3] * 3)._replace(labels=torch.zeros(2), passage_item=torch.tensor([0, 0, 1]), max_passages=2)
    head, states = Mean(8, 1, 1, CLSToken, dropout=0.0), torch.randn(3, 8)
    first, second, third = head.projection(states)[:, 0].tolist()
    assert head([states], read)[:, 0].tolist() == pytest.approx([(first + second) / 2, third])


@pytest.mark.parametrize(
    ("task", "settings", "complaint"),
    [
        (RelevanceClasses(["AP"]), SMALL, "RelevanceClasses has others. Set max_passages=1"),
        (SpanClassification(["Accuracy"]), SMALL, "SpanClassification has others"),
        (Buckets(["Accuracy"], num_buckets=4), SMALL, "Buckets has others"),
        (Relevance(["AP"]), {"max_passages": 0}, "max_passages is 0, expected a whole number from 1 to 10,000."),
        (Relevance(["AP"]), {"max_passages": 10**20}, "max_passages is 1000"),
        (Relevance(["AP"]), {"max_passages": 2, "train_passages": 3}, "train_passages is 3, expected at most max_pass"),
        (Relevance(["AP"]), {"train_passages": 0}, "train_passages is 0, expected null or a whole number"),
        (Relevance(["AP"]), {"passage_stride": 0}, "passage_stride is 0, expected a share of a passage above 0"),
        (Relevance(["AP"]), {"passage_stride": True}, "passage_stride is True"),
        (Relevance(["AP"]), {"passage_stride": 1.5}, "passage_stride is 1.5"),
    ],
)
def test_what_cannot_be_read_in_passages_is_told(tmp_path, task, settings, complaint):
    with pytest.raises(ConfigError, match=complaint):
        prepared(tmp_path, task, [pair("garden")], **settings)


@pytest.fixture(scope="module")
def model(tmp_path_factory, config, datasets):
    return save_random(tmp_path_factory.mktemp("run") / "model", config, datasets, spread=5.0)


def windows(scorer, query, text, most):
    """The texts of a document's passages."""
    loaded = scorer._scorer.preprocessor
    ids, (in_query,) = text.split(), loaded.ids([query])
    room = loaded.lengths.max_length - loaded.template.num_special - len(in_query)
    starts = islice(range(0, max(len(ids) - room, 0) + room // 2, room // 2), most)
    return [" ".join(ids[start : start + room]) for start in starts]


@pytest.mark.parametrize("most", [1, 2, 4])
def test_a_documents_score_is_its_best_passages(model, tokens, most):
    """Each passage is scored by itself here, as a text that fits."""
    texts = [document(tokens, length, start) for start, length in enumerate((10, 250, 400, 900, 1500))]
    scorer = mtlrank.load(model, "trec2019", max_passages=most)
    single = mtlrank.load(model, "trec2019")
    found = scorer.score([("silent garden", text) for text in texts], batch_size=2)
    best = [
        max(single.score([("silent garden", passage) for passage in windows(scorer, "silent garden", text, most)]))
        for text in texts
    ]
    np.testing.assert_allclose(found, best, rtol=0, atol=1e-5)
    if most == 4:
        assert (np.abs(found - single.score([("silent garden", text) for text in texts])) > 1e-4).any()


def long_collection(folder, tokens):
    """A collection of a document for each length, all judged."""
    lengths = {f"d{n}": n for n in (5, 230, 260, 500, 1000)}
    files = {
        "docs": [f"{name}\t{document(tokens, length, i)}" for i, (name, length) in enumerate(lengths.items())],
        "queries": ["q1\tsilent harbour", "q2\tgarden"],
        "qrels": [f"{q} 0 {name} {length % 3}" for q in ("q1", "q2") for name, length in lengths.items()],
        "run": [f"{q} Q0 {name} {rank} {-rank} x" for q in ("q1", "q2") for rank, name in enumerate(lengths, 1)],
    }
    return {part: write(folder / f"{part}.txt", lines) for part, lines in files.items()}


def test_rank_and_evaluate_read_the_same_passages(model, tmp_path, tokens):
    parts = long_collection(tmp_path, tokens)
    where = ", ".join(f"{part}: {path}" for part, path in parts.items())
    del parts["qrels"]
    runs = {}
    for most in (None, 3):
        words = {"model_dir": model, "head": "trec2019", "max_passages": most}
        judged = {"on": f"{{long: {{{where}}}}}", "data_dir": tmp_path / "data", "output_dir": tmp_path / f"{most}"}
        evaluate.run(settings("evaluate", **words, **judged))
        rank.run(settings("rank", **words, **parts, output=tmp_path / f"{most}.run"))
        runs[most] = (tmp_path / f"{most}.run").read_text()
        assert runs[most] == (tmp_path / f"{most}" / "trec2019@long" / "run.trec").read_text()
    assert runs[None] != runs[3]
    with pytest.raises(
        ConfigError, match="holds the results of another run, of this one before .*, or with other max_passages"
    ):
        evaluate.run(settings("evaluate", **words, **{**judged, "output_dir": tmp_path / "None"}))
    rows = compare.run([str(tmp_path / "None"), str(tmp_path / "3")], resamples=100, first_stage=False)
    assert {(row.baseline, row.system) for row in rows} == {("max_passages=None", "max_passages=3")}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Lightning's own
@pytest.mark.parametrize("task", ["relevance", "relevance_lambda"])
def test_a_trained_head_remembers_its_passages(tmp_path, task):
    """Of 32 tokens, most passages of the embedded collection are longer."""
    where = "datamodule.dataset.datasets.trec2019"
    words = ["tasks=[trec2019]", "max_length=32", "max_query_length=12", f"{where}.preprocessor.max_passages=3"]
    words += [f"{where}.num_candidates=3", f"+{where}.max_queries=20", "training.max_steps=3"]
    words += [f"task@{where}.task={task}"]
    output, data = tmp_path / "run", tmp_path / "data"
    train.run(compose_config([*words, f"output_dir={output}", f"data_dir={data}"], trusted=True))
    words = {"ir_dataset": "mtlrank-embedded/test", "top_k": 3, "output": tmp_path / "found"}
    rank.run(settings("rank", model_dir=output, head="trec2019", **words))
    assert (tmp_path / "found").read_text() == (output / "evaluation" / "trec2019" / "run.trec").read_text()


def test_an_exported_classifier_says_that_it_scores_a_passage(tmp_path, config, datasets):
    changed = copy.deepcopy(config)
    changed["datamodule"]["dataset"]["datasets"]["trec2019"]["preprocessor"]["max_passages"] = 4
    folder = save_random(tmp_path / "model", changed, datasets)
    output = tmp_path / "exported"
    export.run(settings("export", model_dir=folder, head="trec2019", output_dir=output))
    assert "in up to 4 passages, and the best one's score is the document's" in (output / "README.md").read_text()


def test_a_probe_reads_the_first_passage(model, tmp_path, tokens):
    records = [pair(document(tokens, n), doc_id=f"d{n}") for n in (30, 4, 60)]
    head = load_head(model, "trec2019")
    found = [
        read_vectors(
            head.model.body,
            head.module.pooler,
            prepared(tmp_path / str(most), Relevance(["AP"]), records, **{**SMALL, "max_passages": most}).split(
                "train"
            ),
            np.arange(3),
            [0, 1],
            batch_size=2,
            max_bytes=1e9,
            what="test",
        ).values
        for most in (1, 3)
    ]
    torch.testing.assert_close(*found)
