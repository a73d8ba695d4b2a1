import random

import pytest

from mtlrank.tags import Entity, bio, entities, is_tag


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("", []),
        ("O O", []),
        ("B-PER I-PER O", [(0, 2, "PER")]),
        ("B-PER B-PER", [(0, 1, "PER"), (1, 2, "PER")]),
        ("I-PER I-PER", [(0, 2, "PER")]),  # as in CoNLL 2003, where B is only between entities of a type
        ("B-PER I-LOC", [(0, 1, "PER"), (1, 2, "LOC")]),
        ("B-PER O I-PER", [(0, 1, "PER"), (2, 3, "PER")]),
        ("S-PER I-PER E-PER", [(0, 1, "PER"), (1, 3, "PER")]),
        ("B-PER L-PER U-PER", [(0, 2, "PER"), (2, 3, "PER")]),
    ],
)
def test_entities_by_hand(tags, expected):
    assert entities(tags.split()) == expected


@pytest.mark.parametrize("seed", range(20))
def test_tags_say_which_entities_there_are(seed):
    """Also of entities that follow each other."""
    draw = random.Random(seed)
    marked, word = [], 0
    for _ in range(8):
        first = word + draw.choice([0, 0, 2])
        word = first + draw.randint(1, 3)
        marked.append(Entity(first, word, draw.choice(["PER", "LOC"])))
    tags = bio(word + 1, marked)
    assert entities(tags) == marked
    assert len(tags) == word + 1
    assert all(is_tag(tag, parts="BI") for tag in tags)


def test_what_is_a_tag():
    assert [is_tag(tag) for tag in ("O", "B-PER", "E-a", "U-a")] == [True] * 4
    assert not any(is_tag(tag) for tag in ("", "o", "B", "B-", "PER", "X-PER", "BPER", "OO"))
    assert not is_tag("E-PER", parts="BI")
