"""What BM25 counts as a term, and settings that it cannot have."""

import bm25s
import pytest
import Stemmer

from mtlrank.annotate.bm25_settings import STOPWORDS, BM25Settings
from mtlrank.errors import ConfigError


def test_without_settings_terms_are_as_before():
    text = "The Rankings of a B-52: it's 1st, naïve"
    assert BM25Settings.of(None) == BM25Settings.of({}) == BM25Settings(0.9, 0.4, "english", None)
    assert BM25Settings().tokens([text, ""]) == [["rankings", "52", "1st", "naïve"], []]
    assert BM25Settings().suffix == ""


def test_stop_words_are_those_of_a_language_or_none():
    text = "der Hafen und die Lichter of the Stadt"
    assert BM25Settings(stopwords="german").tokens([text]) == [["hafen", "lichter", "of", "the", "stadt"]]
    assert BM25Settings().tokens([text]) == [["der", "hafen", "und", "die", "lichter", "stadt"]]
    assert BM25Settings(stopwords=None).tokens([text]) == [text.lower().split()]


def test_stems_take_the_place_of_words_after_stop_words_are_left_out():
    texts = ["Rankings of ranked harbours", "does it rank"]
    assert BM25Settings(stemmer="porter").tokens(texts) == [["rank", "rank", "harbour"], ["doe", "rank"]]
    assert BM25Settings(stopwords="german", stemmer="german").tokens(["die Häuser des Hauses"]) == [["haus", "haus"]]


@pytest.mark.parametrize("name", STOPWORDS)
def test_every_list_of_stop_words_is_there(name):
    words = getattr(bm25s.stopwords, f"STOPWORDS_{name.upper().replace('ENGLISH', 'EN')}")
    assert BM25Settings.of({"stopwords": name}).tokens([" ".join(words), "harbour"]) == [[], ["harbour"]]


def test_only_chinese_is_left_out():
    lists = {name.removeprefix("STOPWORDS_").lower() for name in vars(bm25s.stopwords) if name.startswith("STOPWORDS_")}
    assert {name.replace("english", "en") for name in STOPWORDS} == lists - {"chinese"}


@pytest.mark.parametrize("name", sorted({*Stemmer.algorithms()} - {"hindi", "nepali", "tamil"}))
def test_every_stemmer_is_there(name):
    assert len(BM25Settings.of({"stemmer": name}).tokens(["silent harbour"])[0]) == 2


def test_settings_tell_all_that_scores_depend_on():
    assert str(BM25Settings()) == "k1=0.9, b=0.4, stopwords=english, stemmer=none"
    other = BM25Settings.of({"k1": 1, "b": 0, "stopwords": None, "stemmer": "porter"})
    assert str(other) == f"k1=1, b=0, stopwords=none, stemmer=porter of PyStemmer {Stemmer.version()}"
    names = ({"k1": 1}, {"b": 0.5}, {"stopwords": None}, {"stemmer": "porter"}, {"stemmer": "english"})
    assert len({BM25Settings.of(each).suffix for each in ({}, *names)}) == 6
    assert BM25Settings.of({"k1": 1}).suffix == BM25Settings.of({"k1": 1.0}).suffix


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"k1": -0.1}, "bm25.k1 is -0.1, expected a finite number, at least 0."),
        ({"k1": float("nan")}, "bm25.k1 is nan, expected a finite number, at least 0."),
        ({"k1": None}, "bm25.k1 is None, expected a finite number, at least 0."),
        ({"b": 1.5}, "bm25.b is 1.5, expected a number from 0 to 1."),
        ({"b": "0.4"}, "bm25.b is '0.4', expected a number from 0 to 1."),
        (
            {"stem": 1},
            "bm25 names unknown settings: stem. Did you mean 'stemmer'? Settings: k1, b, stopwords, stemmer.",
        ),
        ({"stopwords": "chinese"}, "bm25.stopwords is 'chinese', expected null or one of english, english_plus, "),
        ({"stopwords": False}, "bm25.stopwords is False, expected null or one of english, english_plus, "),
        ({"stemmer": "porter2"}, "bm25.stemmer is 'porter2', expected null or one of arabic, "),
        ({"stemmer": "hindi"}, "bm25.stemmer is 'hindi', expected null or one of arabic, "),
        ({"stemmer": True}, "bm25.stemmer is True, expected null or one of arabic, "),
        ("german", "bm25 is 'german', expected a mapping with k1, b, stopwords, stemmer."),
    ],
)
def test_a_setting_that_cannot_be_is_one_line(given, expected):
    with pytest.raises(ConfigError) as told:
        BM25Settings.of(given)
    assert str(told.value).startswith(expected)
    assert "\n" not in str(told.value)
