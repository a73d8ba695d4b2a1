"""A head of a trained model, ready to be used."""

from pathlib import Path
from typing import Any, Literal, NamedTuple

from mtlrank.building.dataset import build_dataset
from mtlrank.building.model import build_saved_model
from mtlrank.building.own_classes import own_code
from mtlrank.checks import nearest
from mtlrank.composing.untrusted import check_targets
from mtlrank.config import Config, datasets_of
from mtlrank.datamodule.dataset import PreparedDataset
from mtlrank.datamodule.dataset.prepared import check_one_score
from mtlrank.datamodule.preprocessor import LoadedPreprocessor
from mtlrank.errors import ConfigError
from mtlrank.inference.questions import PAIR, Form
from mtlrank.inference.scorer import Scorer
from mtlrank.inference.scoring import evaluation_device, evaluation_precision
from mtlrank.model.head import MTLHead
from mtlrank.model.multitask import MultiTaskModel
from mtlrank.model.saved import BACKBONE, load_weights, read_model
from mtlrank.progress import warn
from mtlrank.storage import MANIFEST, read_json, unchanged
from mtlrank.task import Task

Kinds = Literal["pairs", "texts", "any"]  # of heads
_HEADS = {"pairs": "Heads that score a query and a passage", "texts": "Heads on whole texts", "any": "Heads"}


class TrainedHead(NamedTuple):
    """A head with the whole model that it belongs to, and what it was trained on."""

    folder: Path
    config: Config
    key: str  # of its dataset, in the config
    dataset: PreparedDataset  # not opened: its task and its preprocessor
    model: MultiTaskModel
    loaded_preprocessor: LoadedPreprocessor  # the dataset's, with the saved tokenizer
    state: str  # of the folder, as `state_of` gives it

    @property
    def name(self) -> str:
        """The head's name, which is its dataset's."""
        return self.dataset.name

    @property
    def task(self) -> Task:
        """The head's task, which says what its logits mean."""
        return self.dataset.task

    @property
    def form(self) -> Form:
        """The inputs that the head accepts."""
        keys = self.dataset.text_keys
        if keys is None and (self.dataset.is_ranking or self.module.pooler.needs_pairs):
            keys = PAIR
        return Form(keys, self.task.num_spans, self.dataset.spans_in, self.task.tags)

    @property
    def module(self) -> MTLHead:
        """The head itself."""
        return self.model.head(self.name)

    def preprocessor(self, max_passages: int | None = None) -> LoadedPreprocessor:
        """The saved tokenizer with the lengths that the head was trained with; only `max_passages` may differ."""
        if max_passages is None:
            return self.loaded_preprocessor
        changed = self.loaded_preprocessor.with_passages(max_passages)
        if max_passages > 1:
            check_one_score(self.name, self.task)
        return changed

    def scorer(self, batch_size: int = 128, *, max_passages: int | None = None, is_compiled: bool = False) -> Scorer:
        """A scorer that works as evaluation does. The model is moved to the GPU if there is one."""
        device = evaluation_device()
        self.model.to(device)
        if is_compiled:
            self.model.body.compile_layers(device, scoring=True)
        precision = evaluation_precision(str(self.config["trainer"]["precision"]))
        return Scorer(self.model, self.name, self.task, self.preprocessor(max_passages), batch_size, precision)


def read_trained(folder: Path, *, trust: bool = False) -> tuple[Config, dict[str, Any]]:
    """(config, labels) of a saved model. Without `trust`, it may only name classes that mtlrank's configs name.

    Weights are data, but a config names classes that are built: from somebody else's folder that would run their code.
    """
    config, labels = read_model(folder)
    if not trust:
        try:
            check_targets(parts_of_model(config))
        except ConfigError as error:
            raise ConfigError(f"{folder}: {error} If you trust this folder, add trust_model=true.") from error
    elif (found := own_code(parts_of_model(config))) and found != read_json(folder / MANIFEST).get("own_code", []):
        warn(f"your own classes have changed since {folder} was trained: its results may be wrong")
    return config, labels


def parts_of_model(config: Config) -> dict[str, Any]:
    """The parts of a config that are built to use its model."""
    return {"model": config["model"], "datamodule": config["datamodule"]}


def load_head(folder: Path, head: str | None, *, trust: bool = False, kinds: Kinds = "pairs") -> TrainedHead:
    """Load the head of this name, or the one that needs no name, if it is of one of these kinds.

    Raises `ConfigError` for a head that does not exist or is of another kind, and as `read_trained` does.
    """
    with unchanged(folder) as state:
        config, labels = read_trained(folder, trust=trust)
        key, dataset = choose_head(config, head, kinds=kinds)
        dataset.task.learn_labels(labels[key])
        model = build_saved_model(config, labels).eval()
        load_weights(folder, model)
        dataset.preprocessor.tokenizer_name = str(folder / BACKBONE)  # and not the name that training had
        preprocessor = dataset.preprocessor.load()
    return TrainedHead(folder, config, key, dataset, model, preprocessor, state)


def check_predicts(head: TrainedHead) -> None:
    """Refuse a head that needs more than the texts of its input."""
    if head.dataset.bm25_text:
        raise ConfigError(
            f"Head {head.name!r} also reads BM25 scores (bm25_in_text): use `mtlrank rank`, which takes them."
        )


def unfit(dataset: PreparedDataset) -> str | None:
    """Why a dataset's head gives no score to a query and a passage; None if it does."""
    if dataset.task.tags:
        return "tags the words of a text"
    if spans := dataset.task.num_spans:
        return f"judges {'a span' if spans == 1 else f'{spans} spans'} of a text"
    if dataset.task.kind == "classification":
        return "chooses a class"
    return "reads single texts" if len(dataset.text_keys or PAIR) == 1 else None


def choose_head(config: Config, head: str | None, *, kinds: Kinds = "pairs") -> tuple[str, PreparedDataset]:
    """The dataset, with its key, of the head that `load_head` loads. It is not opened.

    A head needs no name if it is the only one of these kinds, or the only one that scores a query and a passage.
    """
    datasets = {key: build_dataset(node) for key, node in datasets_of(config).items()}
    scoring = [dataset.name for dataset in datasets.values() if not unfit(dataset)]
    fit = {
        "pairs": scoring,
        "texts": [dataset.name for dataset in datasets.values() if not dataset.task.num_spans],
        "any": [dataset.name for dataset in datasets.values()],
    }[kinds]
    listed = f"{_HEADS[kinds]}: {', '.join(fit) or 'none'}."
    if head is None:
        only = fit if len(fit) == 1 else scoring
        if len(only) != 1:
            raise ConfigError(f"Which head? Choose one with head=... {listed}")
        head = only[0]
    keys = {dataset.name: key for key, dataset in datasets.items()}
    key = keys.get(head, head)
    if key not in datasets:
        raise ConfigError(f"The model has no head {head!r}.{nearest(head, keys)} {listed}")
    if kinds == "pairs" and (reason := unfit(datasets[key])):
        raise ConfigError(
            f"Head {head!r} {reason} and does not score a query and a passage. {listed} `mtlrank predict` uses any head."
        )
    return key, datasets[key]
