import json
import shutil

import numpy as np
import pytest
import torch

from mtlrank.datamodule.preprocessor import Preprocessor
from mtlrank.errors import ConfigError


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
    for length, way in ((32, "Set max_query_length=10"), (10, "Set max_query_length=2"), (8, "Raise max_length")):
        with pytest.raises(ConfigError, match=rf"leaves no room in max_length={length}\. {way}\.$"):
            Preprocessor("x", max_length=length, max_query_length=32)
    Preprocessor("x", max_length=10, max_query_length=2)


@pytest.mark.parametrize("settings", [{"max_length": "abc"}, {"max_query_length": 0}, {"max_length": 64.0}])
def test_lengths_are_whole_numbers(settings):
    with pytest.raises(ConfigError, match="expected whole numbers of at least 1"):
        Preprocessor("x", **settings)
