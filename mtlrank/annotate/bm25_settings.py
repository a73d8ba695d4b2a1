"""Settings of BM25: which words are terms, and how terms weigh."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

import bm25s

from mtlrank.checks import NOT_NEGATIVE, all_known, choice, number, or_null
from mtlrank.errors import ConfigError
from mtlrank.storage import fingerprint

STOPWORDS = (
    *("english", "english_plus", "danish", "dutch", "french", "german", "italian", "korean", "norwegian"),
    *("portuguese", "russian", "spanish", "swedish", "turkish"),
)  # the lists of bm25s, but for Chinese, whose texts have no blanks between words
_WITH_VOWEL_SIGNS = {"hindi", "nepali", "tamil"}  # words break at vowel signs, so that stemmers see no whole word


class BM25Settings(NamedTuple):
    """The parameters of BM25, and how a text's words become terms.

    Words have at least two letters or digits and are lower-cased. Those of a list of `stopwords` are left out, and the
    others are replaced by their Snowball stem if there is a `stemmer`. The defaults for k1 and b are Anserini's for
    MS MARCO.
    """

    k1: float = 0.9  # how much a term's further occurrences count
    b: float = 0.4  # how much a document's length counts: from 0, not at all, to 1
    stopwords: str | None = "english"  # one of `STOPWORDS`, or none
    stemmer: str | None = None  # an algorithm of Snowball, as in english (Porter's second), porter or german

    @classmethod
    def of(cls, given: Mapping[str, Any] | None) -> "BM25Settings":
        """The settings of a config, with defaults for the rest. Raises `ConfigError` for invalid ones."""
        if not isinstance(given, Mapping | None):
            raise ConfigError(f"bm25 is {given!r}, expected a mapping with {', '.join(cls._fields)}.")
        all_known("bm25", given or {}, cls._fields, "settings")
        settings = cls(**given or {})
        NOT_NEGATIVE.check("bm25.k1", settings.k1)
        number(lambda v: 0 <= v <= 1, "a number from 0 to 1").check("bm25.b", settings.b)
        or_null(choice(STOPWORDS)).check("bm25.stopwords", settings.stopwords)
        if settings.stemmer is not None:
            import Stemmer

            stemmers = [name for name in Stemmer.algorithms() if name not in _WITH_VOWEL_SIGNS]
            or_null(choice(stemmers)).check("bm25.stemmer", settings.stemmer)
        return settings._replace(k1=float(settings.k1), b=float(settings.b))

    def tokens(self, texts: Sequence[str]) -> list[list[str]]:
        """The terms of each text, in their order."""
        stemmer = None
        if self.stemmer is not None:
            import Stemmer

            stemmer = Stemmer.Stemmer(self.stemmer)
        tokens: list[list[str]] = bm25s.tokenize(
            list(texts), stopwords=self.stopwords, stemmer=stemmer, return_ids=False, show_progress=False
        )
        return tokens

    @property
    def suffix(self) -> str:
        """Distinguishes the name of a saved index from those of other settings; empty for the defaults."""
        return "" if self == BM25Settings() else f"-{fingerprint(str(self))}"

    def __str__(self) -> str:
        stemmer = f"{self.stemmer} of PyStemmer {version('PyStemmer')}" if self.stemmer else "none"
        return f"k1={self.k1:g}, b={self.b:g}, stopwords={self.stopwords or 'none'}, stemmer={stemmer}"
