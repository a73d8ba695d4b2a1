"""mtlrank: train one transformer body with one head per dataset, for ranking and the tasks that help it."""

from os import PathLike
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mtlrank.loaded import LoadedHead

__version__ = "0.1.0"


def load(
    folder: str | PathLike[str],
    head: str | None = None,
    *,
    max_passages: int | None = None,
    trust_model: bool = False,
) -> "LoadedHead":
    """A head of a trained model, on the GPU if there is one: `score` scores pairs of texts, `predict` is for any head.

    `folder` is that of a finished run, of its model, or of a registry, whose model in use is taken; local or gs://.
    `head` may be left out if there is only one, or only one that scores a query and a passage. A text that is longer than
    fits is read in at most `max_passages` passages, and the best one's score is the text's; None: as many as in training.
    With `trust_model`, classes of your own that the model's config names are built too: their code is run. Raises
    `ValueError` for what cannot be loaded.
    """
    from mtlrank import loaded  # here, as it loads torch

    return loaded.load(folder, head, max_passages=max_passages, trust=trust_model)
