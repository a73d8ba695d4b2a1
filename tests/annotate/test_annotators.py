"""Annotators: the labels of pairs by rule, and by models that are made here."""

import json
import random
import shutil

import numpy as np
import pytest
import spacy
from hypothesis import given
from hypothesis import strategies as st
from spacy.language import Language

from mtlrank.annotate.annotator import Pair
from mtlrank.annotate.cross_encoder import CrossEncoder
from mtlrank.annotate.lexical import BM25, TermImportance
from mtlrank.annotate.mentions import mention_pairs
from mtlrank.annotate.sem_sim import SemanticSimilarity
from mtlrank.annotate.spacy import Coreference, NamedEntities
from mtlrank.datamodule.collection import Collection
from mtlrank.errors import ConfigError

TEXT = "Mira Halden met Oren Pell in Quellin. She told him about the harbour."


@pytest.fixture
def docs(source):
    return Collection(source).docs


def pairs(docs, query, *doc_ids):
    texts = docs.texts(doc_ids)
    return [Pair("q", doc_id, query, texts[doc_id]) for doc_id in doc_ids]


def test_bm25_labels_are_the_collections_scores(docs):
    query = "silent harbour harbour"
    records = list(BM25().records(pairs(docs, query, "d4", "d1", "d5"), docs))
    scores = docs.bm25.scores(query)
    assert [record.label for record in records] == pytest.approx([float(scores[i]) for i in (3, 0, 4)], rel=1e-6)


def test_bm25_labels_follow_the_collections_settings(source):
    """By hand: with k1=0 the score is the idf of each term that two texts share, whatever their lengths."""
    docs = Collection({**source, "bm25": {"k1": 0, "stemmer": "english"}}).docs
    (record,) = BM25().records(pairs(docs, "Harbours", "d2"), docs)
    assert record.label == pytest.approx(np.log(1 + (5 - 3 + 0.5) / (3 + 0.5)), rel=1e-6)
    terms = TermImportance().records(pairs(docs, "harbours unheard", "d2"), docs)
    assert [(term.label, term.spans) for term in terms] == [(1.0, ((0, 8),)), (0.0, ((9, 16),))]


def test_the_importance_of_a_term_is_its_share_of_the_score(docs):
    query = "The silent harbour, the harbour"
    (first, *_) = records = list(TermImportance().records(pairs(docs, query, "d1", "d5", "d4"), docs))
    words = [(r.doc_id, r.query[slice(*r.spans[0])]) for r in records]
    in_query = ["The", "silent", "harbour", "the", "harbour"]
    assert words == [*(("d1", word) for word in in_query), *(("d4", word) for word in in_query)]  # d5 shares no term
    silent, harbour = (float(docs.bm25.scores(word)[0]) for word in ("silent", "harbour"))
    total = silent + 2 * harbour
    assert [r.label for r in records[:5]] == pytest.approx([0, silent / total, harbour / total, 0, harbour / total])
    assert first.spans_in == "query"
    assert len({r.group for r in records}) == 2


def test_semantic_similarity_is_the_cosine_of_the_models_embeddings(docs, tiny_encoder):
    annotator = SemanticSimilarity(tiny_encoder)
    chosen = pairs(docs, "silent harbour", "d1", "d3")
    labels = [record.label for record in annotator.records(chosen, docs)]
    query, *texts = annotator._loaded.encode(["silent harbour", "the silent harbour", "a garden"])
    cosines = [float(query @ text / np.linalg.norm(query) / np.linalg.norm(text)) for text in texts]
    assert labels == pytest.approx(cosines, abs=1e-6)
    assert annotator.describe()["model"] == tiny_encoder


@pytest.fixture(scope="module")
def tiny_encoder(home, tmp_path_factory):
    """A sentence-transformers model of the embedded tiny BERT."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import AutoConfig, AutoModel

    weights = tmp_path_factory.mktemp("weights")
    shutil.copytree(home / "tiny-bert", weights, dirs_exist_ok=True)
    AutoModel.from_config(AutoConfig.from_pretrained(weights)).save_pretrained(weights)
    word = Transformer(str(weights))
    model = SentenceTransformer(modules=[word, Pooling(word.get_embedding_dimension())], device="cpu")
    folder = tmp_path_factory.mktemp("encoder")
    model.save(str(folder))
    return str(folder)


def classifier(folder, home, **settings):
    """A stock sequence classifier of the embedded tiny BERT; random weights as strong as trained ones."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    shutil.copytree(home / "tiny-bert", folder)
    config = AutoConfig.from_pretrained(folder, initializer_range=0.3, **settings)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    return str(folder)


def test_a_cross_encoder_gives_the_logits_of_the_librarys_own(docs, home, tmp_path):
    import sentence_transformers

    model = classifier(tmp_path / "model", home, num_labels=1)
    chosen = pairs(docs, "silent harbour", "d1", "d2", "d3", "d4", "d5")
    labels = [record.label for record in CrossEncoder(model, batch_size=2).records(chosen, docs)]
    theirs = sentence_transformers.CrossEncoder(model, device="cpu")
    probabilities = theirs.predict([(pair.query, pair.text) for pair in chosen])  # a sigmoid of the logits
    assert np.std(labels) > 0.1
    assert 1 / (1 + np.exp(-np.array(labels))) == pytest.approx(probabilities, abs=1e-5)
    assert labels == [record.label for record in CrossEncoder(model, batch_size=2).records(chosen, docs)]
    assert set(CrossEncoder(model).describe()) == {"model", "weights", "sentence-transformers"}

    theirs.save_pretrained(str(tmp_path / "saved"))  # as modules, which tell their class
    saved = [record.label for record in CrossEncoder(str(tmp_path / "saved")).records(chosen, docs)]
    assert saved == pytest.approx(labels, abs=1e-5)
    for folder in (model, str(tmp_path / "saved")):
        with pytest.raises(ConfigError, match="sem_sim expects a SentenceTransformer .* use the annotator cross_enc"):
            list(SemanticSimilarity(folder).records(chosen, docs))


def test_a_cross_encoder_needs_a_head_with_one_output(docs, home, tmp_path, tiny_encoder):
    plain = tmp_path / "plain"  # transformers would put a random head on it
    shutil.copytree(classifier(tmp_path / "three", home, num_labels=3), plain)
    config = json.loads((plain / "config.json").read_text())
    (plain / "config.json").write_text(json.dumps({**config, "architectures": ["BertModel"]}))
    for model, complaint in (
        (tmp_path / "three", "expects a model with one output, found 3"),
        (plain, "expects a CrossEncoder as its model, found .* use the annotator sem_sim"),
        (tiny_encoder, "expects a CrossEncoder as its model, found .* use the annotator sem_sim"),
    ):
        with pytest.raises(ConfigError, match=complaint):
            list(CrossEncoder(str(model)).records([Pair("q", "d", "who", TEXT)], docs))


@Language.component("pronouns_follow_names")
def pronouns_follow_names(doc):
    """Two clusters: she is Mira Halden, he is Oren Pell."""
    for number, (name, pronoun) in enumerate((("Mira Halden", "She"), ("Oren Pell", "him")), 1):
        found = [doc.text.index(word) for word in (name, pronoun) if word in doc.text]
        lengths = [len(name), len(pronoun)]
        doc.spans[f"coref_clusters_{number}"] = [
            doc.char_span(start, start + length) for start, length in zip(found, lengths, strict=False)
        ]
    return doc


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """A spaCy pipeline that knows three names and finds two clusters."""
    nlp = spacy.blank("en")
    ruler = nlp.add_pipe("entity_ruler")
    ruler.add_patterns(
        [
            {"label": "PERSON", "pattern": "Mira Halden"},
            {"label": "PERSON", "pattern": "Oren Pell"},
            {"label": "PLACE", "pattern": "Quellin"},
        ]
    )
    nlp.add_pipe("pronouns_follow_names")
    folder = tmp_path_factory.mktemp("pipeline")
    nlp.to_disk(folder)
    return str(folder)


def test_named_entities_are_spans_of_the_passage(docs, pipeline):
    annotator = NamedEntities(pipeline)
    records = list(annotator.records([Pair("q", "d", "who", TEXT), Pair("q", "e", "who", "nobody")], docs))
    surfaces = [(r.text[slice(*r.spans[0])], r.label) for r in records]
    assert surfaces == [("Mira Halden", "PERSON"), ("Oren Pell", "PERSON"), ("Quellin", "PLACE")]
    assert all(record.query is None for record in records)
    assert annotator.describe()["model"].startswith("en_pipeline")


def test_entities_are_also_tags_of_all_words(docs, pipeline):
    texts = ["Near  Oren\nPell, Quellin's harbour", "nobody"]  # blanks are tokens of spaCy's, also within an entity
    nlp = spacy.load(pipeline)
    nlp.get_pipe("entity_ruler").add_patterns([{"label": "PERSON", "pattern": "Oren\nPell"}])
    annotator = NamedEntities(pipeline, tags=True)
    annotator._nlp = nlp
    records = list(annotator.records([Pair("q", f"d{i}", "who", text) for i, text in enumerate(texts)], docs))
    words = [("Near", "O"), ("Oren", "B-PERSON"), ("Pell", "I-PERSON"), (",", "O"), ("Quellin", "B-PLACE")]
    assert [(record.text[slice(*record.spans[0])], record.label) for record in records] == [
        *words,
        *[("'s", "O"), ("harbour", "O"), ("nobody", "O")],
    ]
    assert [record.group for record in records] == [0] * 7 + [1]


def test_coreference_pairs_are_within_and_across_clusters(docs, pipeline):
    records = list(Coreference(pipeline).records([Pair("q", "d", "who", TEXT)], docs))
    found = [(r.label, *(r.text[slice(*span)] for span in r.spans)) for r in records]
    assert found[:2] == [("coreferent", "Mira Halden", "She"), ("coreferent", "Oren Pell", "him")]
    assert [label for label, *_ in found[2:]] == ["distinct", "distinct"]


def test_pairs_across_clusters_are_drawn_by_the_seed(docs, pipeline):
    def drawn(seed):
        return tuple(Coreference(pipeline, seed=seed).records([Pair("q", "d", "who", TEXT)], docs))

    assert drawn(0) == drawn(0)
    assert len({drawn(seed) for seed in range(6)}) > 1  # two of four pairs


clusters = st.lists(st.lists(st.integers(0, 9).map(lambda start: (start, start + 2)), max_size=4), max_size=4)


@given(clusters)
def test_pairs_of_mentions_are_in_the_order_of_the_text_and_balanced(clusters):
    found = list(mention_pairs(clusters, random.Random(0)))
    same = [pair for *pair, label in found if label == "coreferent"]
    different = [pair for *pair, label in found if label == "distinct"]
    assert len(different) <= len(same)
    assert not any({*pair} <= {*cluster} for cluster in clusters for pair in different)
    assert len({(first, second) for first, second, _ in found}) == len(found)
    assert all(first <= second for first, second, _ in found)
    assert all(any({*pair} <= {*cluster} for cluster in clusters) for pair in same)


@pytest.mark.parametrize(
    ("annotator", "complaint"),
    [
        (
            NamedEntities("no_such_pipeline"),
            "spaCy cannot load the pipeline 'no_such_pipeline'.*spacy download no_such",
        ),
        (CrossEncoder("no/such-model@v1"), "sentence-transformers cannot load the model 'no/such-model@v1'"),
        (SemanticSimilarity("/no/such/folder"), "sentence-transformers cannot load the model '/no/such/folder'"),
    ],
)
def test_a_model_that_is_not_there_is_named(docs, annotator, complaint):
    with pytest.raises(ConfigError, match=complaint):
        list(annotator.records([Pair("q", "d", "who", TEXT)], docs))
