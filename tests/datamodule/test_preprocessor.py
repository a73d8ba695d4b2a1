import json
import shutil
from functools import partial

import numpy as np
import pytest
import torch

from mtlrank.datamodule.preprocessor import Preprocessor
from mtlrank.errors import ConfigError
from mtlrank.inference.candidates import Candidate
from mtlrank.inference.packed import PackedPairs
from tests import decoders


@pytest.fixture(scope="module")
def preprocessor(home):
    return Preprocessor("mtlrank-embedded/tiny-bert").load()


def test_the_template_is_read_off_the_tokenizer(preprocessor):
    tokens = preprocessor.tokenizer.convert_ids_to_tokens
    template = preprocessor.template
    assert [tokens(list(part)) for part in template[:3]] == [["[CLS]"], ["[SEP]"], ["[SEP]"]]
    assert template.second_type == 1
    assert template.num_special == 3


@pytest.mark.parametrize(
    ("surface", "expected"),
    [("Mira", "mira"), ("Halden", "halden"), ("Mira Halden", "mira halden"), ("1874", "1874"), (".", ".")],
)
def test_a_span_of_characters_becomes_the_tokens_that_hold_it(preprocessor, surface, expected):
    text = "In 1874 Mira Halden married."
    tokens = preprocessor.encode([text])[0]
    start, end = tokens.span(text.index(surface), text.index(surface) + len(surface))
    assert preprocessor.tokenizer.decode(tokens.ids[start:end]) == expected


def test_a_span_without_tokens_is_none(preprocessor):
    assert preprocessor.encode(["a  b"])[0].span(1, 3) is None


def test_no_texts_give_no_tokens(preprocessor):
    assert preprocessor.encode([]) == []


@pytest.mark.parametrize("threads", [1, 3])
def test_many_texts_have_the_tokens_that_each_has_alone(preprocessor, monkeypatch, threads):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    texts = [f"In {year} Mira married{', and left Halden' * (year % 3)}." for year in range(1000, 1600)]
    with_places = preprocessor.encode(texts)
    for text, ids, tokens in zip(texts, preprocessor.ids(texts), with_places, strict=True):
        (alone,) = preprocessor.encode([text])
        np.testing.assert_array_equal(ids, alone.ids)
        np.testing.assert_array_equal(tokens.ids, alone.ids)
        np.testing.assert_array_equal(tokens.offsets, alone.offsets)


def test_equal_tokenizers_have_equal_identities_and_others_do_not(preprocessor, home, tmp_path):
    copy = shutil.copytree(home / "tiny-bert", tmp_path / "copy")
    assert preprocessor.identity() == Preprocessor(str(copy)).load().identity()
    tokenizer = json.loads((copy / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    first, second = list(vocabulary)[-2:]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (copy / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert preprocessor.identity() != Preprocessor(str(copy)).load().identity()


def test_a_query_that_leaves_no_room_is_refused():
    for length, way in ((32, "Set max_query_length=10"), (10, "Set max_query_length=2")):
        with pytest.raises(ConfigError, match=rf"leaves no room in max_length={length}\. {way}\.$"):
            Preprocessor("x", max_length=length, max_query_length=32)
    Preprocessor("x", max_length=10, max_query_length=2)


@pytest.mark.parametrize(
    "settings", [{"max_length": "abc"}, {"max_query_length": 0}, {"max_length": 64.0}, {"max_length": 8}]
)
def test_lengths_are_whole_numbers(settings):
    with pytest.raises(ConfigError, match=r"max_\w+ is .*expected .*a whole number,? (of )?at least [19]"):
        Preprocessor("x", **settings)


@pytest.mark.parametrize("max_length", [20, 21])
@pytest.mark.parametrize("lengths", [(3, 5), (3, 40), (40, 3), (12, 12), (13, 11), (11, 13), (12, 60), (19, 17)])
def test_of_two_texts_of_one_kind_the_longer_one_is_cut(preprocessor, max_length, lengths):
    """As Hugging Face's tokenizers do."""
    one, other = (" ".join(["garden"] * length) for length in lengths)
    expected = preprocessor.tokenizer(one, other, truncation="longest_first", max_length=max_length)
    cutting = Preprocessor("mtlrank-embedded/tiny-bert", max_length, max_query_length=None).load()
    packed = PackedPairs([Candidate(0, "", one, other)], cutting).collate(np.array([0]))
    assert packed.input_ids.tolist() == expected["input_ids"]
    assert packed.token_type_ids.tolist() == expected["token_type_ids"]


@pytest.mark.parametrize(("spans_in", "kept"), [("query", 9), ("text", 8)])
def test_a_span_is_kept_if_its_text_is_not_cut_before_it(preprocessor, spans_in, kept):
    """Of 20 tokens 17 have room, 9 of the longer text and 8 of the other one."""
    texts = " ".join(["garden"] * 14), " ".join(["garden"] * 12)
    items = tuple(((7 * number, 7 * number + 6),) for number in range(12))
    cutting = Preprocessor("mtlrank-embedded/tiny-bert", 20, max_query_length=None).load()
    packed = PackedPairs([Candidate(0, "", *texts, items, spans_in)], cutting).collate(np.array([0]))
    first = 1 if spans_in == "query" else 11  # [CLS] and, after nine tokens, [SEP]
    assert packed.spans[:, 0].tolist() == [[first + number, first + number + 1] for number in range(kept)]


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    """The folder of a tokenizer that puts nothing between or after texts."""
    folder = tmp_path_factory.mktemp("decoder")
    decoders.tokenizer().save_pretrained(folder)
    return str(folder)


def sequence(preprocessor, *texts):
    query, text = texts if len(texts) == 2 else (None, *texts)
    return PackedPairs([Candidate(0, "", query, text)], preprocessor).collate(np.array([0])).input_ids.tolist()


TOKENIZERS = {
    "bytes": decoders.tokenizer,
    "marks by a normalizer": partial(decoders.with_word_marks, by_normalizer=True),
    "marks by a pre-tokenizer": partial(decoders.with_word_marks, by_normalizer=False),
}


SPACED = ["query: {query} document: {text}END", "<Q>: {query}\n<D>: {text}\nEND"]


@pytest.mark.parametrize(
    ("kind", "template"),
    # Elsewhere, tokenizers with marks begin each text with one, also after a new line.
    [*((kind, template) for kind in TOKENIZERS for template in SPACED), ("bytes", "{query}\n{text}END")],
)
@pytest.mark.parametrize(
    "pair", [("Who married Mira Halden", "In 1874, Mira married"), ("é", "two  blanks"), ("a", "b")]
)
def test_texts_in_a_template_have_the_tokens_of_the_joined_text(tmp_path, kind, template, pair):
    tokenizer = TOKENIZERS[kind]()
    tokenizer.save_pretrained(tmp_path)
    template = template.replace("END", tokenizer.eos_token)
    preprocessor = Preprocessor(str(tmp_path), template=template).load()
    joined = template.replace("{query}", pair[0]).replace("{text}", pair[1])
    expected = tokenizer.backend_tokenizer.encode(joined, add_special_tokens=False).ids
    assert sequence(preprocessor, *pair) == expected
    before, _, after = template.replace("{text}", "{query}").split("{query}")
    alone = tokenizer.backend_tokenizer.encode(before + pair[1] + after, add_special_tokens=False).ids
    assert sequence(preprocessor, pair[1]) == alone


def test_spans_in_a_template_are_those_of_the_text(decoder):
    text = "In 1874 Mira Halden married."
    for template in (None, "query: {query} document: {text}"):
        preprocessor = Preprocessor(decoder, template=template).load()
        tokens = preprocessor.encode([text])[0]
        for surface in ("In", "1874", "Mira Halden", "."):
            begin = text.index(surface)
            start, end = tokens.span(begin, begin + len(surface))
            assert preprocessor.tokenizer.decode(tokens.ids[start:end]).strip() == surface


def test_without_a_template_of_its_own_a_tokenizer_separates_and_ends_texts(decoder):
    preprocessor = Preprocessor(decoder).load()
    assert (
        preprocessor.tokenizer.decode(sequence(preprocessor, "one text", "another"))
        == f"one text\nanother{decoders.END}"
    )
    assert preprocessor.tokenizer.decode(sequence(preprocessor, "one text")) == f"one text{decoders.END}"


def test_a_tokenizer_without_anything_to_end_a_text_with_is_refused(tmp_path):
    tokenizer = decoders.tokenizer()
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(
        ConfigError, match=r"puts nothing between or after two texts, and has no end-of-text token: set"
    ):
        Preprocessor(str(tmp_path)).load()
    assert Preprocessor(str(tmp_path), template="{query}\n{text}\n").load()


@pytest.mark.parametrize("template", ["", "{query}", "{text}{query}", "{query}{text}{text}", "{query}{query}{text}", 3])
def test_a_template_has_both_texts_once_and_in_order(template):
    with pytest.raises(
        ConfigError, match=r"^The template is .*, expected null or a text with \{query\} and then \{text\}"
    ):
        Preprocessor("x", template=template)


def test_a_template_that_leaves_no_room_is_refused(decoder):
    with pytest.raises(
        ConfigError, match=r"^The template takes \d+ tokens, which leaves 0 of max_length=16 for two te"
    ):
        Preprocessor(decoder, 16, 8, template="{query}" + " and so on" * 9 + "{text}").load()
