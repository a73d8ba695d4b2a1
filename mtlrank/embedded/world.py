"""The invented world of the embedded collection: entities, facts, passages, questions and labels, drawn from a seed."""

import json
import random
import re
from collections.abc import Iterator
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from mtlrank.annotate.bm25 import BM25Index
from mtlrank.storage import write_text

SPLITS = {"train": 650, "val": 50, "test": 100}  # questions
NUM_CANDIDATES = 20
NUM_SIMILAR = {"train": 6000, "val": 300, "test": 600}  # sentence pairs, of which some are drawn twice
NUM_PASSAGES = {"train": 600, "val": 200, "test": 500}  # passages with labelled entities and mentions
_ENTITIES = {"person": 60, "company": 40, "place": 25, "work": 40}
_TAGS = {"person": "PER", "company": "ORG", "place": "LOC", "work": "WORK"}
_KIND_OF_SLOT = {"P": "person", "L": "place", "O": "company"}
_SLOT = re.compile(r"\{(\w+)\}")


class Entity(NamedTuple):
    """Something with a name; `pronouns` are its subject and possessive forms."""

    name: str
    kind: str
    pronouns: tuple[str, str]


class Mention(NamedTuple):
    """Characters `start` to `end` of a text that name `entity`; `tag` is its type, None for a pronoun."""

    start: int
    end: int
    entity: str
    tag: str | None


class MarkedText(NamedTuple):
    """A text made from a template, and its mentions of entities."""

    text: str
    mentions: tuple[Mention, ...]


class Fact(NamedTuple):
    """A fact about a facet of an entity: the fillers of the slots of its templates."""

    entity: Entity
    facet: str
    fillers: dict[str, str | Entity]


class Passage(NamedTuple):
    """A text of the collection, with the entity and facets that it is about."""

    doc_id: str
    sentence: MarkedText
    entity: str
    facet: str
    aside: str | None


class World:
    """All that exists in the invented world, drawn from one seeded stream."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.design: dict[str, Any] = yaml.safe_load(files(__package__).joinpath("world.yaml").read_text("utf-8"))
        self.entities = {kind: self._entities(kind, count) for kind, count in _ENTITIES.items()}
        self.facts = [
            self._fact(entity, facet)
            for kind, entities in self.entities.items()
            for entity, facet in product(entities, self.design["kinds"][kind])
        ]
        self.passages = [passage for fact in self.facts for passage in self._passages(fact)]
        self.random.shuffle(self.passages)
        self.passages = [passage._replace(doc_id=f"d{i}") for i, passage in enumerate(self.passages)]

    # -- what exists -------------------------------------------------------------------------------------------------

    def _entities(self, kind: str, count: int) -> list[Entity]:
        names = self.design["names"]
        if kind == "person":
            female = [Entity(f"{a} {b}", kind, ("she", "her")) for a, b in product(names["female"], names["surnames"])]
            male = [Entity(f"{a} {b}", kind, ("he", "his")) for a, b in product(names["male"], names["surnames"])]
            return self.random.sample(female, count // 2) + self.random.sample(male, count - count // 2)
        if kind == "place":
            candidates = names["places"]
        elif kind == "company":
            stems = names["company_stems"] + names["surnames"][:6] + names["places"][:4]
            candidates = [f"{a} {b}" for a, b in product(stems, names["company_suffixes"])]
        else:
            candidates = [f"The {a} {b}" for a, b in product(names["title_adjectives"], names["title_nouns"])]
        return [Entity(name, kind, ("it", "its")) for name in self.random.sample(candidates, count)]

    def _fact(self, entity: Entity, facet: str) -> Fact:
        statements = self.design["kinds"][entity.kind][facet]["statements"]
        slots = sorted(set(_SLOT.findall(" ".join(statements))) - {"E"})
        return Fact(entity, facet, {slot: self._filler(slot, entity) for slot in slots})

    def _filler(self, slot: str, about: Entity) -> str | Entity:
        if slot == "Y":
            return str(self.random.randint(1820, 1990))
        if slot in _KIND_OF_SLOT:
            return self.random.choice([e for e in self.entities[_KIND_OF_SLOT[slot]] if e.name != about.name])
        word: str = self.random.choice(self.design["words"][slot])
        return word

    # -- texts -------------------------------------------------------------------------------------------------------

    def _realise(self, template: str, entity: Entity, fillers: dict[str, str | Entity]) -> MarkedText:
        text, mentions, done = "", [], 0
        for match in _SLOT.finditer(template):
            text += template[done : match.start()]
            done = match.end()
            filler = self._fill(match[1], entity, fillers)
            words, who = (filler.name, filler) if isinstance(filler, Entity) else (filler, None)
            if match[1] in "Ssx":
                mentions.append(Mention(len(text), len(text) + len(words), entity.name, None))
            elif who is not None:
                mentions.append(Mention(len(text), len(text) + len(words), who.name, _TAGS[who.kind]))
            elif match[1] == "Y":
                mentions.append(Mention(len(text), len(text) + len(words), words, "DATE"))
            text += words
        text += template[done:]
        return MarkedText(text[0].upper() + text[1:], tuple(mentions))

    def _fill(self, slot: str, entity: Entity, fillers: dict[str, str | Entity]) -> str | Entity:
        subject, possessive = entity.pronouns
        fixed: dict[str, str | Entity] = {"E": entity, "S": subject.capitalize(), "s": subject, "x": possessive}
        return fixed.get(slot) or fillers.get(slot) or self._filler(slot, entity)

    def _statements(self, fact: Fact) -> list[MarkedText]:
        templates = self.design["kinds"][fact.entity.kind][fact.facet]["statements"]
        return [self._realise(template, fact.entity, fact.fillers) for template in templates]

    def _passages(self, fact: Fact) -> Iterator[Passage]:
        """Three passages on a fact: a statement of it, often an aside on another fact, and a closing sentence."""
        entity = fact.entity
        for statement in self._statements(fact):
            parts, aside = [statement], None
            if self.random.random() < 0.6:
                aside = self.random.choice([f for f in self.design["kinds"][entity.kind] if f != fact.facet])
                other = next(f for f in self.facts_of(entity) if f.facet == aside)
                parts.append(self.random.choice(self._statements(other)))
            closing = self.random.choice(self.design["closings"][entity.kind])
            parts.append(self._realise(closing, entity, {}))
            yield Passage("", join(parts), entity.name, fact.facet, aside)

    def facts_of(self, entity: Entity) -> list[Fact]:
        """The facts about one entity."""
        return [fact for fact in self.facts if fact.entity == entity]

    # -- what is asked -----------------------------------------------------------------------------------------------

    def questions(self) -> Iterator[tuple[str, str, str, Fact]]:
        """(split, query_id, text, fact): every question asks for another fact, so no answer is known from training."""
        facts = self.random.sample(self.facts, sum(SPLITS.values()))
        splits = [split for split, count in SPLITS.items() for _ in range(count)]
        for number, (split, fact) in enumerate(zip(splits, facts, strict=True)):
            template = self.random.choice(self.design["kinds"][fact.entity.kind][fact.facet]["questions"])
            yield split, f"q{number}", self._realise(template, fact.entity, {}).text.lower(), fact

    def grade(self, fact: Fact, passage: Passage) -> int:
        """3: states the fact. 2: states it as an aside. 1: a related facet of the entity. 0: anything else."""
        if passage.entity != fact.entity.name:
            return 0
        if fact.facet in (passage.facet, passage.aside):
            return 3 if passage.facet == fact.facet else 2
        facets = self.design["kinds"][fact.entity.kind]
        return int(facets[passage.facet]["theme"] == facets[fact.facet]["theme"])

    # -- what the auxiliary tasks learn ------------------------------------------------------------------------------

    def paraphrases(self, count: int) -> Iterator[tuple[float, str, str]]:
        """(score, a, b): 5 the same fact, 3 the same facet otherwise filled, 2 the same entity, 1 the same facet, 0."""
        for _ in range(count):
            fact = self.random.choice(self.facts)
            score = self.random.choice([5.0, 5.0, 3.0, 2.0, 1.0, 0.0])
            first, second = self.random.sample(self._statements(fact), 2)
            if score < 5:
                second = self.random.choice(self._statements(self._unlike(fact, score)))
            yield score, first.text, second.text

    def _unlike(self, fact: Fact, score: float) -> Fact:
        if score == 3:
            return self._fact(fact.entity, fact.facet)
        same_entity, same_facet = score == 2, score == 1
        return self.random.choice(
            [
                other
                for other in self.facts
                if other != fact
                and (other.entity == fact.entity) == same_entity
                and ((other.entity.kind, other.facet) == (fact.entity.kind, fact.facet)) == same_facet
            ]
        )

    def tagged(self, count: int) -> Iterator[str]:
        """Passages as CoNLL lines: a token, a tab and its BIO tag."""
        for passage in self.random.sample(self.passages, count):
            text, mentions = passage.sentence
            lines = []
            for token in re.finditer(r"\w+|[^\w\s]", text):
                tag = next((m for m in mentions if m.tag and m.start <= token.start() < m.end), None)
                place = "B" if tag and tag.start == token.start() else "I"
                lines.append(f"{token[0]}\t{place}-{tag.tag}" if tag else f"{token[0]}\tO")
            yield "\n".join(lines) + "\n"

    def coreferences(self, count: int) -> Iterator[dict[str, Any]]:
        """A passage with two spans, a mention and a later pronoun, and whether they mean the same entity."""
        for passage in self.random.sample(self.passages, count):
            text, mentions = passage.sentence
            named = [m for m in mentions if m.tag not in (None, "DATE")]
            pronouns = [m for m in mentions if m.tag is None]
            pairs = [(a, b) for a in named for b in pronouns if a.start < b.start]
            same = [pair for pair in pairs if pair[0].entity == pair[1].entity][:1]
            other = [pair for pair in pairs if pair[0].entity != pair[1].entity][:1]
            for a, b in same + other:
                label = "coreferent" if a.entity == b.entity else "distinct"
                yield {
                    "id": passage.doc_id,
                    "text": text,
                    "spans": [[a.start, a.end], [b.start, b.end]],
                    "label": label,
                }

    # -- how it is written -------------------------------------------------------------------------------------------

    def write(self, target: Path) -> None:
        """Write the collection and every task's labels as ordinary files."""
        texts = {passage.doc_id: passage.sentence.text for passage in self.passages}
        write_text(target / "docs.tsv", "".join(f"{doc_id}\t{text}\n" for doc_id, text in texts.items()))
        index = BM25Index.build(texts.values())
        names = list(texts)
        questions = list(self.questions())
        for split in SPLITS:
            asked = [(query_id, text, fact) for where, query_id, text, fact in questions if where == split]
            write_text(target / split / "queries.tsv", "".join(f"{i}\t{text}\n" for i, text, _ in asked))
            write_text(target / split / "qrels.txt", "".join(self._qrels(asked)))
            lines = (line for query_id, text, _ in asked for line in _run(index, names, query_id, text))
            write_text(target / split / "bm25.run", "".join(lines))
        pairs = {split: list(self.paraphrases(count)) for split, count in NUM_SIMILAR.items()}
        elsewhere = set[tuple[str, str]]()
        for split in reversed(NUM_SIMILAR):  # what test has is not in validation, and what either has not in training
            kept = [(score, first, second) for score, first, second in pairs[split] if (first, second) not in elsewhere]
            write_text(target / "sem_sim" / f"{split}.tsv", "".join(f"{s}\t{a}\t{b}\n" for s, a, b in kept))
            elsewhere |= {(first, second) for _, first, second in kept}
        self._write_passages(target)

    def _qrels(self, asked: list[tuple[str, str, Fact]]) -> Iterator[str]:
        for query_id, _, fact in asked:
            for passage in self.passages:
                if passage.entity == fact.entity.name:
                    yield f"{query_id} 0 {passage.doc_id} {self.grade(fact, passage)}\n"

    def _write_passages(self, target: Path) -> None:
        """Entities and mentions: no passage is in two splits."""
        passages, done = self.passages, 0
        for split, count in NUM_PASSAGES.items():
            self.passages, done = passages[done : done + count], done + count
            write_text(target / "ner" / f"{split}.conll", "\n".join(self.tagged(count)))
            rows = (json.dumps(row) + "\n" for row in self.coreferences(count))
            write_text(target / "coref" / f"{split}.jsonl", "".join(rows))
        self.passages = passages


def _run(index: BM25Index, names: list[str], query_id: str, query: str) -> Iterator[str]:
    """The lines of a query's first-stage ranking."""
    positions, scores = (found[:NUM_CANDIDATES] for found in index.retrieve(query, NUM_CANDIDATES))
    for rank, (position, score) in enumerate(zip(positions.tolist(), scores.tolist(), strict=True), 1):
        yield f"{query_id} Q0 {names[position]} {rank} {score:.6f} bm25\n"


def join(sentences: list[MarkedText]) -> MarkedText:
    """One text out of several, their mentions shifted along."""
    text, mentions = "", list[Mention]()
    for sentence in sentences:
        text += " " if text else ""
        mentions += [m._replace(start=m.start + len(text), end=m.end + len(text)) for m in sentence.mentions]
        text += sentence.text
    return MarkedText(text, tuple(mentions))
