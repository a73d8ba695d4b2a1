"""Few labels: some of one dataset's samples, and of the others only what is about the same pairs."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from mtlrank.checks import NOT_NEGATIVE, all_known
from mtlrank.datamodule.sampler.sampler import MTLSampler, SampleOrder, pairs_of
from mtlrank.dtypes import Ints
from mtlrank.errors import ConfigError


class LimitedData(MTLSampler):
    """`num_samples` samples of `main` and, of each other dataset, `share` times as many of those about the same pairs.

    For studies of how many labels multi-task learning saves: the auxiliary tasks may tell more about the labelled pairs,
    but bring no new ones. Every epoch has the same samples, shuffled; they depend on `draw_seed` alone.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        batch_size: int,
        main: str,
        num_samples: int,
        share: float = 1.0,
        draw_seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(sizes, batch_size, **kwargs)
        all_known("main", [main], sizes, "datasets")
        if type(num_samples) is not int or not 1 <= num_samples <= self.sizes[main]:
            raise ConfigError(
                f"num_samples is {num_samples!r}, expected a whole number from 1 to the {self.sizes[main]} of {main!r}."
            )
        NOT_NEGATIVE.check("share", share)
        if share and not round(share * num_samples):
            raise ConfigError(
                f"share is {share!r}, which of num_samples={num_samples} rounds to no sample of the other datasets. "
                "Raise it, or set it to 0."
            )
        self.main = main
        self.num_main = num_samples
        self.share = share
        self.draw_seed = draw_seed

    def counts(self) -> list[int]:
        return [len(samples) for samples in self.chosen]

    def order(self, random: np.random.Generator) -> SampleOrder:
        return np.asarray(random.permutation(pairs_of(self.chosen)))

    @cached_property
    def chosen(self) -> list[Ints]:
        """The samples of each dataset that are learnt from."""
        assert self.about is not None, "limited data needs to know what samples are about"
        random = np.random.default_rng(self.draw_seed)
        mine = np.sort(random.permutation(self.sizes[self.main])[: self.num_main])
        about = dict(zip(self.sizes, self.about(self.main, mine), strict=True))
        useless = [name for name, samples in about.items() if not len(samples)]
        if useless and self.share:
            raise ConfigError(
                f"No sample of {', '.join(useless)} is about a pair of the {self.num_main} samples chosen of "
                f"{self.main!r}. Annotate the same collection, leave such datasets out (tasks=[...]), or set share=0."
            )
        return [
            mine if name == self.main else np.sort(random.permutation(samples)[: self._most()])
            for name, samples in about.items()
        ]

    def remarks(self) -> list[str]:
        found, most = dict(zip(self.sizes, self.counts(), strict=True)), self._most()
        few = [f"{name} {count:,}" for name, count in found.items() if name != self.main and count < most]
        if not few:
            return []
        wanted = f"about the {self.num_main:,} samples of {self.main}, {most:,} were wanted"
        return [f"{wanted}, and there are: {', '.join(few)}"]

    def _most(self) -> int:
        """Samples of each other dataset, at most."""
        return round(self.share * self.num_main)
