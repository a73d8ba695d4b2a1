"""Model cards: what a folder is, where it comes from, and how to use it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from mtlrank import __version__
from mtlrank.config import Config, datasets_of, head_names
from mtlrank.embedded import is_read_by
from mtlrank.exporting.facts import Measured, base_model, body, measures, training, without_folders
from mtlrank.exporting.stock import is_through_tanh, stock_type
from mtlrank.model.saved import SOURCES
from mtlrank.storage import read_json
from mtlrank.task import Buckets
from mtlrank.trained_head import TrainedHead

_NO_SOURCES = ("_target_", "name", "task", "preprocessor", "licence")  # settings of a dataset that name none
_MARKUP = re.compile(r"([\\`*_{}\[\]<>#|!~&])")
_CROSS_ENCODER = """
```python
from sentence_transformers import CrossEncoder
model = CrossEncoder(folder)
scores = model.predict([(query, passage) for passage in passages])
```
"""
_TRANSFORMERS = """
```python
from transformers import AutoModelForSequenceClassification, AutoTokenizer
tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForSequenceClassification.from_pretrained(folder)
inputs = tokenizer(TEXTS, truncation=True, padding=True, return_tensors="pt")
scores = model(**inputs).logits[:, 0]
```
"""
_USE = {  # TEXTS: what a tokenizer takes
    "numbers": _TRANSFORMERS,
    "transformers": f"\nWith transformers:\n{_TRANSFORMERS}\nWith sentence-transformers:\n{_CROSS_ENCODER}",
    "sentence-transformers": _CROSS_ENCODER,
    "onnx": """
```python
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
session = onnxruntime.InferenceSession(f"{folder}/model.onnx")
inputs = tokenizer(TEXTS, truncation=True, padding=True, return_tensors="np")
logits = session.run(["logits"], dict(inputs))[0]  # (inputs, 1): the scores; of a head on classes, (inputs, classes)
```
""",
    "classes": """
```python
model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
inputs = tokenizer(TEXTS, truncation=True, padding=True, return_tensors="pt")
probabilities = model(**inputs).logits.softmax(-1)
classes = [model.config.id2label[number] for number in probabilities.argmax(-1).tolist()]
```
""",
    "multitask": """
```bash
mtlrank evaluate model_dir=FOLDER
mtlrank rank model_dir=FOLDER head=NAME input=pairs.tsv output=run.trec
mtlrank predict model_dir=FOLDER head=NAME input=texts.jsonl output=predictions.jsonl
```
""",
}
_NO_FLOAT16 = (
    "Load it in float32 or bfloat16, never in float16: a weight of its classifier is 2^16 or more, which float16 cannot "
    "hold, so that all scores would be infinite.\n"
)


def head_card(head: TrainedHead, layout: str) -> str:
    """The card of an exported head."""
    what = f"The head `{head.name}` of a multi-task model, exported by mtlrank {__version__} for {layout}."
    config, found = read_json(head.folder / "config.json"), _measures(head.folder, [head.name])
    is_choice, is_single = head.task.kind == "classification", head.form.is_single
    purpose, tags = "text-classification", ["mtlrank"]
    use = layout
    if is_choice:
        use = layout if layout == "onnx" else "classes"
        does = "It chooses the class of a text, or of a pair of texts; `id2label` in its config names the classes."
    elif is_single:
        use = layout if layout == "onnx" else "numbers"
        does = "It gives a text a number."
    else:
        purpose, tags = "text-ranking", ["cross-encoder", "reranker", "mtlrank"]
        does = "It gives a query and a passage a score; a higher one is better."
    header = {"library_name": layout, "pipeline_tag": purpose, "tags": tags}
    return "\n".join(
        [
            _front(header | _index(config, found, head, purpose), config),
            f"# {head.name}\n\n{what} {does}",
            f"\n## Use\n{_USE[use].replace('TEXTS', 'texts' if is_single else 'queries, passages')}",
            *([_NO_FLOAT16] if layout == "transformers" and is_through_tanh(head) else []),
            *_limits(head, layout),
            *_origin(config, head.folder, found),
        ]
    )


def model_card(folder: Path) -> str:
    """The card of a whole multi-task model."""
    config = read_json(folder / "config.json")
    names = head_names(config)
    what = f"One body with {len(names)} heads ({', '.join(names)}), exported by mtlrank {__version__}."
    found = _measures(folder, names)
    return "\n".join(
        [
            _front({"library_name": "mtlrank", "tags": ["multi-task", "mtlrank"]}, config),
            f"# A multi-task model\n\n{what}",
            f"\n## Use\n{_USE['multitask']}",
            *_origin(config, folder, found),
        ]
    )


def _measures(folder: Path, heads: list[str]) -> list[Measured]:
    return [each for each in measures(folder) if each.head in heads]


def _front(values: dict[str, Any], config: Config) -> str:
    """The header that the hub reads."""
    base = base_model(config)
    values = {**values, "base_model": base} if base else values
    return f"---\n{yaml.safe_dump(values, sort_keys=False, allow_unicode=True)}---\n"


def _index(config: Config, measured: list[Measured], head: TrainedHead, task: str) -> dict[str, Any]:
    """The head's measures on its test split as the hub lists them; empty if it has none or its data are invented."""
    values = {each.measure: each.value for each in measured if each.split == "test"}
    if not values or is_read_by(datasets_of(config)[head.key]):
        return {}
    metrics = [{"type": measure, "value": round(value, 4)} for measure, value in values.items()]
    dataset = {"name": head.name, "type": "unknown", "split": "test"}
    results = [{"task": {"type": task}, "dataset": dataset, "metrics": metrics}]
    return {"model-index": [{"name": head.name, "results": results}]}


def _limits(head: TrainedHead, layout: str) -> Iterator[str]:
    """What differs from mtlrank, and what is unusual about the weights."""
    preprocessor = head.preprocessor()
    longest, query, passages, _ = preprocessor.lengths
    equal = min(query or longest, (longest - preprocessor.template.num_special) // 2)
    family = head.model.body.config.model_type
    yield "## What to know\n"
    pairs = f"- Pairs are cut to {longest} tokens, the longer text first."
    if query is not None:
        pairs = (
            f"- Pairs are cut to {longest} tokens. Scores equal mtlrank's for queries of up to {equal} tokens: mtlrank "
            f"cuts a query after {query}, the tokenizer cuts the longer text first. These lines cut a longer one as "
            "mtlrank does, but for the last tokens, if the shorter text has others there (WordPiece, as in BERT, never "
            "has):\n\n"
            f"  ```python\n  kept = tokenizer(query, add_special_tokens=False, truncation=True, max_length={query}, "
            "return_offsets_mapping=True)\n"
            '  query = query[: max((end for _, end in kept["offset_mapping"]), default=0)]\n  ```'
        )
    yield f"- Texts are cut to {longest} tokens." if head.form.is_single else pairs
    if passages > 1:
        yield (
            f"- mtlrank reads a longer document in up to {passages} passages, and the best one's score is the document's. "
            "This model scores one passage: split documents, and take the maximum."
        )
    if layout == "transformers" and stock_type(head) != family:
        yield "- It is an ELECTRA by name: the encoder is the BERT that was trained, the classifier has the head's GELU."
    elif layout == "transformers" and is_through_tanh(head):
        yield "- The head is one linear layer, carried through the small range in which the stock classifier is linear."
    if isinstance(head.task, Buckets):
        yield f"- The classes are buckets of numbers, and between them are {', '.join(map(str, head.task.edges))}."
    if head.task.kind == "classification":
        yield "- The softmax of the logits is the head's probabilities of the classes."
    else:
        unit = "the head's logit" if head.task.kind == "ranking" else "in the unit of the labels"
        yield f"- The score is {unit}."


def _origin(config: Config, folder: Path, measured: list[Measured]) -> Iterator[str]:
    """The data that the model learnt from, how it was trained, and its measures."""
    yield f"\n## Where it comes from\n\n- Body: {escape(body(config))}\n"
    yield "| head | kind of head | licence of its data |\n|---|---|---|"
    heads, sources = config["model"]["heads"], dict[str, Any]()
    for key, node in datasets_of(config).items():
        kind = heads[heads[key].get("of", key)]["_target_"].rpartition(".")[2]
        yield f"| {escape(str(node['name']))} | {kind} | {escape(str(node.get('licence') or 'not stated'))} |"
        sources[str(node["name"])] = source_of(config, folder, key)
    yield "\nTheir data:\n"
    yield "".join(f"    {line}\n" for line in yaml.safe_dump(sources, sort_keys=False, allow_unicode=True).splitlines())
    yield "\n## Training\n"
    yield from (f"- {escape(fact)}: {escape(value)}" for fact, value in training(config, folder))
    if measured:
        yield "\n## Measures\n\n| head | split | measure | value | 95 % interval | baseline | judged on |"
        yield "|---|---|---|---:|---:|---:|---|"
        yield from (f"| {' | '.join(map(escape, _cells(each)))} |" for each in measured)
    yield ""


def _cells(row: Measured) -> tuple[str, ...]:
    low, high = row.interval or (None, None)
    interval = "" if low is None else f"{low:.4f} to {high:.4f}"
    baseline = f"{row.baseline:.4f} ({row.baseline_name})"
    return row.head, row.split, row.measure, f"{row.value:.4f}", interval, baseline, row.units


def source_of(config: Config, folder: Path, key: str) -> Any:
    """Ids with versions and files with hashes, as preparation recorded them; else the settings of the config."""
    node = datasets_of(config)[key]
    settings = {name: value for name, value in node.items() if name not in _NO_SOURCES and value is not None}
    return without_folders(read_json(folder / SOURCES).get(key) or settings)


def escape(text: str) -> str:
    """Text that Markdown shows as it is, in one line."""
    return _MARKUP.sub(r"\\\1", " ".join(text.split()))
