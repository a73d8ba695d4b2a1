"""Model cards: what a folder is, where it comes from, and how to use it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from mtlrank import __version__
from mtlrank.composing.compose import Config
from mtlrank.evaluation.judged_head import SUMMARY, head_folders
from mtlrank.exporting.stock import stock_type
from mtlrank.model.head import Linear
from mtlrank.model.saved import SOURCES, WEIGHTS
from mtlrank.storage import file_hash, read_json
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
_USE = {
    "transformers": """
With transformers:

```python
from transformers import AutoModelForSequenceClassification, AutoTokenizer
tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForSequenceClassification.from_pretrained(folder)
inputs = tokenizer(queries, passages, truncation=True, padding=True, return_tensors="pt")
scores = model(**inputs).logits[:, 0]
```

With sentence-transformers:
"""
    + _CROSS_ENCODER,
    "sentence-transformers": _CROSS_ENCODER,
    "onnx": """
```python
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
session = onnxruntime.InferenceSession(f"{folder}/model.onnx")
inputs = tokenizer(queries, passages, truncation=True, padding=True, return_tensors="np")
scores = session.run(["logits"], dict(inputs))[0][:, 0]
```
""",
    "classes": """
```python
model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
inputs = tokenizer(texts, truncation=True, padding=True, return_tensors="pt")  # of pairs: tokenizer(queries, texts, ...)
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


def head_card(head: TrainedHead, layout: str) -> str:
    """The card of an exported head."""
    body = head.model.body.config.model_type
    what = f"The head `{head.name}` of a multi-task model that mtlrank {__version__} trained, for {layout}."
    config = read_json(head.folder / "config.json")
    is_choice = head.task.kind == "classification"
    kind = {"pipeline_tag": "text-ranking", "tags": ["cross-encoder", "mtlrank"]}
    does = "It gives a query and a passage a score; a higher one is better."
    if is_choice:
        kind = {"pipeline_tag": "text-classification", "tags": ["mtlrank"]}
        does = "It chooses the class of a text, or of a pair of texts; `id2label` in its config names the classes."
    return "\n".join(
        [
            _front({"library_name": layout, **kind}),
            f"# {head.name}\n\n{what} {does}",
            f"\n## Use\n{_USE['classes' if is_choice else layout]}",
            *_limits(head, layout, body),
            *_origin(config, head.folder, [head.name]),
        ]
    )


def model_card(folder: Path) -> str:
    """The card of a whole multi-task model."""
    config = read_json(folder / "config.json")
    names = [str(node["name"]) for node in config["datamodule"]["dataset"]["datasets"].values()]
    what = f"One body with {len(names)} heads ({', '.join(names)}), trained by mtlrank {__version__}."
    return "\n".join(
        [
            _front({"library_name": "mtlrank", "tags": ["multi-task", "mtlrank"]}),
            f"# A multi-task model\n\n{what}",
            f"\n## Use\n{_USE['multitask']}",
            *_origin(config, folder, names),
        ]
    )


def _front(values: dict[str, Any]) -> str:
    return f"---\n{yaml.safe_dump(values, sort_keys=False)}---\n"


def _limits(head: TrainedHead, layout: str, body: str) -> Iterator[str]:
    """What differs from mtlrank, and what is unusual about the weights."""
    preprocessor = head.preprocessor()
    longest, query, passages, _ = preprocessor.lengths
    equal = min(query or longest, (longest - preprocessor.template.num_special) // 2)
    yield "## What to know\n"
    pairs = f"- Pairs are cut to {longest} tokens, the longer text first."
    if query is not None:
        pairs = (
            f"- Pairs are cut to {longest} tokens. Scores equal mtlrank's for queries of up to {equal} tokens: mtlrank "
            f"cuts a query after {query}, the tokenizer cuts the longer text first. mtlrank's score of a longer one:\n\n"
            f"  ```python\n  kept = tokenizer(query, add_special_tokens=False, truncation=True, max_length={query}, "
            'return_offsets_mapping=True)\n  query = query[: kept["offset_mapping"][-1][1]]\n  ```'
        )
    yield f"- Texts are cut to {longest} tokens." if head.form.is_single else pairs
    if passages > 1:
        yield (
            f"- mtlrank reads a longer document in up to {passages} passages, and the best one's score is the document's. "
            "This model scores one passage: split documents, and take the maximum."
        )
    if layout != "sentence-transformers" and stock_type(head) != body:
        yield "- It is an ELECTRA by name: the encoder is the BERT that was trained, the classifier has the head's GELU."
    elif layout != "sentence-transformers" and type(head.module) is Linear and body not in ("electra", "distilbert"):
        yield (
            "- The head is one linear layer, carried through the small range in which the stock classifier is linear. "
            "Run it in float32 or bfloat16: float16 cannot hold such small weights."
        )
    if isinstance(head.task, Buckets):
        yield f"- The classes are buckets of numbers, and between them are {', '.join(map(str, head.task.edges))}."
    if head.task.kind == "classification":
        yield "- The softmax of the logits is the head's probabilities of the classes."
    else:
        unit = "the head's logit" if head.task.kind == "ranking" else "in the unit of the labels"
        yield f"- The score is {unit}."


def _origin(config: Config, folder: Path, names: list[str]) -> Iterator[str]:
    """The data that the model learnt from, and its measures."""
    yield "\n## Where it comes from\n"
    yield f"- Body: {escape(_shown(config['model']['body']['backbone']))}, seed {config['seed']}, mtlrank {__version__}\n"
    yield "| head | kind of head | licence of its data |\n|---|---|---|"
    heads, sources = config["model"]["heads"], dict[str, Any]()
    for key, node in config["datamodule"]["dataset"]["datasets"].items():
        kind = heads[heads[key].get("of", key)]["_target_"].rpartition(".")[2]
        yield f"| {escape(str(node['name']))} | {kind} | {escape(str(node.get('licence') or 'not stated'))} |"
        sources[str(node["name"])] = _source(config, folder, key)
    yield "\nTheir data:\n"
    yield "".join(f"    {line}\n" for line in yaml.safe_dump(sources, sort_keys=False, allow_unicode=True).splitlines())
    measured = [row for row in _measures(folder) if row[0] in names]
    if measured:
        yield "\n## Measures\n\n| head | split | measure | value | baseline |\n|---|---|---|---:|---:|"
        yield from (f"| {' | '.join(map(escape, row))} |" for row in measured)
    yield ""


def _source(config: Config, folder: Path, key: str) -> Any:
    """Ids with versions and files with hashes, as preparation recorded them; else the settings of the config."""
    node = config["datamodule"]["dataset"]["datasets"][key]
    settings = {name: value for name, value in node.items() if name not in _NO_SOURCES and value is not None}
    return without_folders(read_json(folder / SOURCES).get(key) or settings)


def without_folders(value: Any) -> Any:
    """A description in which paths are names, without the folders of somebody's machine."""
    if isinstance(value, dict):
        return {key: without_folders(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_folders(item) for item in value]
    return _shown(value) if isinstance(value, str) else value


def _shown(text: str) -> str:
    """A name without the folders of somebody's machine."""
    return Path(text).name if text.startswith(("/", "~", ".")) else text


def _measures(folder: Path) -> Iterator[tuple[str, ...]]:
    """The measures of the model in the evaluation folders beside it, which may be of other models, too."""
    own = file_hash(folder / WEIGHTS)
    for path in head_folders(sorted(folder.absolute().parent.glob("evaluation*"))):
        head = read_json(path / SUMMARY)
        if head["weights"] != own:
            continue
        for measure, value in head["values"].items():
            baseline = f"{head['baseline'][measure]:.4f} ({head['baseline_name']})"
            yield head["name"], head["split"], measure, f"{value:.4f}", baseline


def escape(text: str) -> str:
    """Text that Markdown shows as it is, in one line."""
    return _MARKUP.sub(r"\\\1", " ".join(text.split()))
