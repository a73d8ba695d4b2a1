"""Text to tokens: a tokenizer, how it joins two texts, and which tokens a span of characters becomes."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from itertools import chain
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from mtlrank.batch import Span
from mtlrank.checks import is_number, or_null, whole
from mtlrank.chunks import chunks
from mtlrank.dtypes import Ints
from mtlrank.errors import ConfigError

T = TypeVar("T")
Ids = NDArray[np.int32]
_MOST_PASSAGES = 10_000  # a book has a thousand
_PLACES = re.compile(r"\{(query|text)\}")  # of the texts in a template that is given
_WORDS = "a", "b"  # that stand in them to see which tokens its pieces have
_PART = 128  # texts that a thread tokenises at a time: ten milliseconds for passages


class Lengths(NamedTuple):
    """How much of its texts a sequence holds, in tokens, and in how many passages a longer document is read."""

    max_length: int  # of a sequence, special tokens included
    max_query_length: int | None  # None: of two texts, the longer one is cut
    max_passages: int = 1
    passage_stride: float = 0.5  # from one passage to the next, as a share of the room for a passage

    def kept(self, first: Ints, second: Ints, rooms: Ints) -> Ints:
        """How many tokens are read of first texts, beside second ones, in sequences with room for `rooms` of both.

        Where the longer one is cut, both keep half of the room if neither fits into that, as with Hugging Face's
        "longest_first" (but for a token, if both are longer than a sequence).
        """
        if self.max_query_length is not None:
            return np.minimum(first, self.max_query_length)
        # More than `max_length` tokens of a text need not be stored, so they are not compared.
        is_first_longer = np.minimum(first, self.max_length) > np.minimum(second, self.max_length)
        half = rooms // 2 + rooms % 2 * is_first_longer
        kept: Ints = np.minimum(first, np.maximum(rooms - second, half))
        return kept

    def strides(self, rooms: Ints) -> Ints:
        """Tokens from the start of one passage to the next, for sequences with room for `rooms` tokens of a document."""
        strides: Ints = np.maximum(1, (rooms * self.passage_stride).astype(np.int64))
        return strides

    def reach(self, room: int) -> int:
        """How many tokens of a document all its passages cover, if a sequence has room for `room` of them."""
        return room + (self.max_passages - 1) * int(self.strides(np.array(room)))

    @property
    def longest_text(self) -> int:
        """How many tokens of a text are kept: no sequence reads more."""
        return self.reach(self.max_length)


class Template(NamedTuple):
    """The tokens around one text and between two: `[CLS] a [SEP]`, `[CLS] a [SEP] b [SEP]`. They may spell a prompt."""

    prefix: tuple[int, ...]
    middle: tuple[int, ...]
    suffix: tuple[int, ...]
    second_type: int  # token type of the second text and of what follows it

    @property
    def num_special(self) -> int:
        """The template's own tokens in a pair."""
        return len(self.prefix) + len(self.middle) + len(self.suffix)


class Room(NamedTuple):
    """Where in a sequence a text begins, and how many of its tokens fit."""

    start: int
    length: int


class Tokens(NamedTuple):
    """A text's tokens without special ones; `offsets` are each token's (start, end) characters."""

    ids: Ids
    offsets: NDArray[np.int64]  # (tokens, 2)

    def span(self, start: int, end: int) -> Span | None:
        """First and one past the last token of the characters `start` to `end`; None if no token holds them."""
        first = int(np.searchsorted(self.offsets[:, 1], start, side="right"))
        last = int(np.searchsorted(self.offsets[:, 0], end, side="left"))
        return (first, last) if first < last else None

    def positions(self, spans: Iterable[Span], room: Room) -> list[Span] | None:
        """The token positions of spans of characters in a sequence that has this room for the text.

        None if truncation cuts one off, or if one contains no token, such as a blank.
        """
        found = [self.span(*span) for span in spans]
        kept = [(span[0] + room.start, span[1] + room.start) for span in found if span and span[1] <= room.length]
        return kept if len(kept) == len(found) else None


def check_passages(number: int) -> int:
    """Check a setting of how many passages are read, and return it."""
    if type(number) is not int or not 1 <= number <= _MOST_PASSAGES:
        raise ConfigError(f"max_passages is {number!r}, expected a whole number from 1 to {_MOST_PASSAGES:,}.")
    return number


class Preprocessor:
    """A Hugging Face tokenizer (hub name or local folder) and the lengths that texts are cut to.

    A query keeps its first `max_query_length` tokens; a document fills what is left of `max_length`. Of two texts that
    are no query and document (None), the longer one is cut until both fit. A document that is longer may be read in
    several passages, each beside the query: windows that start `passage_stride` of their length apart, at most
    `max_passages` of them, in training `train_passages`. The best passage's score is the document's (MaxP; Dai and
    Callan 2019, section 3). With one passage, only the document's start is read (FirstP).

    `template` is what surrounds two texts, as in "query: {query} document: {text}</s>", all of it: special tokens are
    written out, and a backslash with an n is a new line. A text by itself stands where the query does, up to `{query}` and
    from after `{text}`. A space that stands before both is the texts' own, as tokenizers of decoders join a space with the
    word after it. Null is the tokenizer's own template; if that has nothing between two texts, as in decoders, a new line
    stands there, and if it has nothing at the end, the end-of-text token.
    """

    def __init__(
        self,
        tokenizer: str,
        max_length: int = 256,
        max_query_length: int | None = 64,
        max_passages: int = 1,
        train_passages: int | None = None,
        passage_stride: float = 0.5,
        template: str | None = None,
    ) -> None:
        if not isinstance(tokenizer, str):
            raise ConfigError(f"The tokenizer is {tokenizer!r}, expected a Hugging Face name or a folder.")
        if template is not None:
            pieces(template)
        or_null(whole(1)).check("max_query_length", max_query_length)
        whole(9).check("max_length", max_length)
        if max_query_length is not None and max_query_length > max_length - 8:
            way = f"Set max_query_length={min(max_length // 3, max_length - 8)}."
            raise ConfigError(f"max_query_length={max_query_length} leaves no room in max_length={max_length}. {way}")
        check_passages(max_passages)
        self.train_passages = or_null(whole(1)).check("train_passages", train_passages) or max_passages
        if self.train_passages > max_passages:
            raise ConfigError(f"train_passages is {train_passages}, expected at most max_passages, {max_passages}.")
        if not is_number(passage_stride) or not 0 < passage_stride <= 1:
            raise ConfigError(f"passage_stride is {passage_stride!r}, expected a share of a passage above 0, up to 1.")
        self.tokenizer_name = tokenizer
        self.lengths = Lengths(max_length, max_query_length, max_passages, passage_stride)
        self.template = template

    def load(self) -> "LoadedPreprocessor":
        """Load the tokenizer: the only part that may need the network, so it waits until it is needed."""
        from mtlrank.backbone import load_tokenizer

        return LoadedPreprocessor(load_tokenizer(self.tokenizer_name), self.lengths, self.template)


class LoadedPreprocessor:
    """A preprocessor whose tokenizer is loaded."""

    def __init__(self, tokenizer: Any, lengths: Lengths, template: str | None) -> None:
        self.tokenizer = tokenizer
        self.lengths = lengths
        self._backend = tokenizer.backend_tokenizer
        self._backend.no_truncation()  # a saved tokenizer may have either switched on
        self._backend.no_padding()
        self.before_texts = ""  # what each text is tokenised with: a space or nothing
        self.template = self._own_template() if template is None else self._given_template(template)
        room = lengths.max_length - self.template.num_special
        if room <= (lengths.max_query_length or 1):
            raise ConfigError(
                f"The template takes {self.template.num_special} tokens, which leaves {max(room, 0)} of "
                f"max_length={lengths.max_length} for two texts: raise max_length, or lower max_query_length."
            )

    def with_passages(self, number: int) -> "LoadedPreprocessor":
        """The same, reading documents in at most so many passages."""
        changed = copy(self)
        changed.lengths = self.lengths._replace(max_passages=check_passages(number))
        return changed

    @property
    def largest_id(self) -> int:
        """The largest number of a token; a vocabulary may have gaps."""
        return int(max(self.tokenizer.get_vocab().values()))

    def ids(self, texts: Sequence[str]) -> list[Ids]:
        """The tokens of many texts at once, without special ones."""
        return _in_threads(self._ids, texts)

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        """The tokens of many texts at once with the characters that each stands for, which takes longer."""
        return _in_threads(self._encode, texts)

    def kept(self, texts: Iterable[str], located: Iterable[str]) -> tuple[dict[str, Ids], dict[str, Tokens]]:
        """By text: the tokens that are kept of each one, and all tokens, with their characters, of the `located` ones."""
        texts, located = list(dict.fromkeys(texts)), list(dict.fromkeys(located))
        places = dict(zip(located, self.encode(located), strict=True))
        plain = [text for text in texts if text not in places]
        ids = dict(zip(plain, self.ids(plain), strict=True)) | {text: tokens.ids for text, tokens in places.items()}
        return {text: ids[text][: self.lengths.longest_text] for text in texts}, places

    def room(self) -> Room:
        """The room of a text by itself."""
        begin = len(self.template.prefix)
        return Room(begin, self.lengths.max_length - begin - len(self.template.suffix))

    def rooms(self, first: int, second: int, note: int = 0) -> tuple[Room, Room]:
        """The rooms of two texts that have so many tokens, and perhaps a note between them."""
        between = len(self.template.middle) + (note and note + len(self.template.middle))
        begin, end = len(self.template.prefix), len(self.template.suffix)
        room = self.lengths.max_length - begin - between - end
        kept = int(self.lengths.kept(*map(np.array, (first, second, room))))
        return Room(begin, kept), Room(begin + kept + between, room - kept)

    def identity(self) -> dict[str, Any]:
        """Identifies a tokenizer: the size of its vocabulary, and a hash of its serialised form."""
        serialised = json.dumps(json.loads(self.tokenizer.backend_tokenizer.to_str()), sort_keys=True)
        return {"vocab_size": len(self.tokenizer), "sha256": hashlib.sha256(serialised.encode()).hexdigest()}

    def tokenizers_template(self) -> Template:
        """How the tokenizer itself joins two texts."""
        encoded = self.tokenizer("a", "b")
        ids, of_text = encoded["input_ids"], encoded.sequence_ids(0)
        first, second = of_text.index(0), of_text.index(1)
        end_first = len(of_text) - of_text[::-1].index(0)
        end_second = len(of_text) - of_text[::-1].index(1)
        types = encoded.get("token_type_ids") or [0] * len(ids)
        return Template(tuple(ids[:first]), tuple(ids[end_first:second]), tuple(ids[end_second:]), types[second])

    def _own_template(self) -> Template:
        """Read the special tokens off an encoded pair, so that any tokenizer's own template is followed.

        Decoders' tokenizers may put nothing between two texts or behind them: a new line, and the end-of-text token.
        """
        template, end = self.tokenizers_template(), self.tokenizer.eos_token_id
        if template.middle and template.suffix:
            return template
        if end is None:
            raise ConfigError(
                f"The tokenizer of {self.tokenizer.name_or_path!r} puts nothing between or after two texts, and has no "
                "end-of-text token: set the preprocessor's template, as in '{query}\\n{text}</s>'."
            )
        middle = template.middle or self._in_context("", "\n", "")[2] or (end,)
        return template._replace(middle=middle, suffix=template.suffix or (end,))

    def _given_template(self, template: str) -> Template:
        """The tokens of a template that is given as text: those that its pieces have around two words."""
        parts = pieces(template)
        before, first, between, second, after = self._in_context(*parts)
        leads = [lead for lead in ("", " ") if [first, second] == [self._tokens(lead + word) for word in _WORDS]]
        self.before_texts = next(iter(leads), "")
        if not leads:  # one word took the space before it, and the texts would not
            found = zip(parts, (before, between, after), strict=True)
            before, between, after = (self._tokens(part) if part.endswith(" ") else ids for part, ids in found)
        return Template(before, between, after, self.tokenizers_template().second_type)

    def _in_context(self, before: str, between: str, after: str) -> list[tuple[int, ...]]:
        """The tokens of a template's pieces, and of words between them, in the text that they make together.

        A token belongs to the part in which it ends: a space, to the word after it.
        """
        parts = [before, _WORDS[0], between, _WORDS[1], after]
        encoded, ends = self._backend.encode("".join(parts), add_special_tokens=False), np.cumsum([*map(len, parts)])
        part_of = np.searchsorted(ends, [max(end, 1) for _, end in encoded.offsets])
        return [tuple(np.array(encoded.ids)[part_of == number].tolist()) for number in range(len(parts))]

    def _tokens(self, text: str) -> tuple[int, ...]:
        return tuple(self._backend.encode(text, add_special_tokens=False).ids)

    def _ids(self, texts: list[str]) -> list[Ids]:
        encoded = self._backend.encode_batch_fast(self._led(texts), add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.int32) for encoding in encoded]

    def _encode(self, texts: list[str]) -> list[Tokens]:
        encoded, shift = self._backend.encode_batch(self._led(texts), add_special_tokens=False), len(self.before_texts)
        offsets = [np.maximum(np.array(e.offsets, np.int64).reshape(-1, 2) - shift, 0) for e in encoded]
        return [Tokens(np.array(e.ids, np.int32), places) for e, places in zip(encoded, offsets, strict=True)]

    def _led(self, texts: list[str]) -> list[str]:
        return [self.before_texts + text for text in texts] if self.before_texts else texts


def pieces(template: str) -> tuple[str, str, str]:
    """What a template has before the query, between the two texts and after them. Raises `ConfigError` for another text."""
    before, *rest = _PLACES.split(template.replace("\\n", "\n")) if isinstance(template, str) else [""]
    if rest[::2] != ["query", "text"]:
        raise ConfigError(
            f"The template is {template!r}, expected null or a text with {{query}} and then {{text}}, each once, as in "
            "'query: {query} document: {text}</s>'."
        )
    return before, rest[1], rest[3]


def tokenizer_hash(name: str) -> str:
    """The hash of a tokenizer, given by name or folder, as the manifests of prepared datasets have it."""
    return str(Preprocessor(name).load().identity()["sha256"])


def _in_threads(tokenise: Callable[[list[str]], list[T]], texts: Sequence[str]) -> list[T]:
    """What `tokenise` makes of many texts, part by part, in as many threads as torch uses.

    Not in those of the tokenizer itself (TOKENIZERS_PARALLELISM): after their first use, they hang in a process that was
    forked.
    """
    parts = list(chunks(texts, _PART))
    if (threads := min(torch.get_num_threads(), len(parts))) <= 1:
        return tokenise(list(texts))
    with ThreadPoolExecutor(threads) as pool:
        return list(chain.from_iterable(pool.map(tokenise, parts)))
