"""Relevance by a cross-encoder, which reads query and passage together: a teacher for rankings."""

from collections.abc import Iterator, Sequence

from torch import nn

from mtlrank.annotate.annotator import Documents, Pair
from mtlrank.annotate.pretrained import PretrainedAnnotator
from mtlrank.batch import Record
from mtlrank.errors import ConfigError


class CrossEncoder(PretrainedAnnotator):
    """The logit of any cross-encoder of sentence-transformers with one output, before sigmoid or other activation."""

    kind = "CrossEncoder"

    def records(self, pairs: Sequence[Pair], documents: Documents) -> Iterator[Record]:
        model = self._loaded
        if model.num_labels != 1:
            raise ConfigError(
                f"The annotator cross_encoder expects a model with one output, found {model.num_labels} in {self.model!r}."
            )
        texts = [(pair.query, pair.text) for pair in pairs]
        logits = model.predict(texts, batch_size=self.batch_size, activation_fn=nn.Identity(), show_progress_bar=False)
        for pair, logit in zip(pairs, logits.tolist(), strict=True):
            yield Record(*pair, label=logit)
