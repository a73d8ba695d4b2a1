"""BIO tags of words (Ramshaw and Marcus 1995), and the entities that they mark.

`B-PER` is the first word of an entity of the type PER, `I-PER` a later one, `O` a word of none. BIOES and BILOU also mark
the last word (`E-`, `L-`) and the only one (`S-`, `U-`).
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

OUTSIDE = "O"
_FIRST, _LATER = "BSU", "IEL"  # first letters of the tags of an entity's first word, and of its later ones


class Entity(NamedTuple):
    """Words that are one entity."""

    first: int
    end: int  # exclusive
    type: str


def is_tag(tag: str, parts: str = _FIRST + _LATER) -> bool:
    """Whether a text is a tag: `O`, or one of these parts with a type."""
    return tag == OUTSIDE or (len(tag) > 2 and tag[0] in parts and tag[1] == "-")


def entities(tags: Sequence[str]) -> list[Entity]:
    """The entities of a text by the tags of its words. A later part that continues nothing starts one, as in conlleval."""
    found, open_type = list[Entity](), ""  # of an entity that the next word may continue
    for word, tag in enumerate(tags):
        part, kind = tag[0], tag[2:]
        if part in _FIRST or (part in _LATER and kind != open_type):
            found.append(Entity(word, word + 1, kind))
        elif part in _LATER:
            found[-1] = found[-1]._replace(end=word + 1)
        open_type = kind if part in "BI" else ""
    return found


def bio(num_words: int, marked: Iterable[Entity]) -> list[str]:
    """The tag of each word, by parts `B` and `I` only."""
    tags = [OUTSIDE] * num_words
    for first, end, kind in marked:
        tags[first:end] = [f"B-{kind}", *[f"I-{kind}"] * (end - first - 1)]
    return tags
