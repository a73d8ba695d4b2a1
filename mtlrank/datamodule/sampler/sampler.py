"""The base of all samplers: they yield (dataset_idx, sample_idx), a batch at a time.

An epoch is one order of samples, cut into batches; each step takes the next `world_size` batches. Order and cuts are a
function of seed, epoch and sizes alone: nothing depends on the rank, so a run can be continued anywhere, on any number of
processes, and all of them take equally many steps.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from mtlrank.batch import Draw, Step
from mtlrank.checks import or_null, whole
from mtlrank.datamodule.dataset.arrays import offsets
from mtlrank.dtypes import Ints
from mtlrank.errors import ConfigError

SampleOrder = NDArray[np.int64]  # (samples, 2): dataset_idx, sample_idx


class MTLSampler(Sampler[Draw], ABC):
    """Base of all samplers: a subclass gives the order of an epoch, this cuts it into batches.

    `sizes` are the datasets' numbers of samples by name. `lengths` gives the number of tokens of each sample, and
    `about`, for some samples of a named dataset, those of each dataset about the same pairs; both are called only if
    needed. `training_epochs` are those of the whole training, perhaps a fraction. A batch has `batch_size` samples or,
    instead, an equal share of the epoch's tokens that keeps below `max_tokens` (about, if epochs draw other samples).
    With `length_window` = n, the samples of each n batches are sorted by length and cut into n batches again, which
    come in random order, so that a batch holds samples of similar length. With `one_task`, each batch is of one
    dataset.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        lengths: Callable[[], Sequence[Ints]] | None = None,
        about: Callable[[str, Ints], Sequence[Ints]] | None = None,
        training_epochs: float = 1.0,
        max_tokens: int | None = None,
        length_window: int = 0,
        one_task: bool = False,
    ) -> None:
        if one_task and (max_tokens is not None or length_window):
            raise ConfigError(
                "training.one_task_per_batch works only with training.batch_size. Leave out training.max_tokens and "
                "training.length_window."
            )
        self.sizes = dict(sizes)
        self.batch_size = whole(1).check("batch_size", batch_size)
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.lengths = lengths
        self.about = about
        self.training_epochs = training_epochs
        self.max_tokens = or_null(whole(1)).check("max_tokens", max_tokens)
        self.length_window = whole(0).check("length_window", length_window)
        self.one_task = one_task
        self.epoch = 0
        self.start = 0
        self.accumulated = 1  # batches of each process in an optimizer step
        self.most_batches: int | None = None  # of each process, if an epoch ends early
        self._num_batches: int | None = None
        self._all_lengths: Ints | None = None  # of all datasets' samples, one dataset after another

    @abstractmethod
    def order(self, random: np.random.Generator) -> SampleOrder:
        """All (dataset_idx, sample_idx) of one epoch, (samples, 2).

        If an epoch is not every sample once, override `counts` too.
        """

    def counts(self) -> list[int]:
        """How many samples an epoch has of each dataset."""
        return list(self.sizes.values())

    def num_samples(self) -> int:
        """Length of an epoch's order."""
        return sum(self._checked_counts())

    def remarks(self) -> list[str]:
        """What a user should know of the samples, told when training begins."""
        return []

    def pass_through(self, dataset: int, start: int, count: int) -> Ints:
        """The next `count` samples of a dataset of which `start` were drawn before, in random order.

        None is drawn again before all were. For epochs that do not hold a dataset whole: each continues where the one
        before ended.
        """
        size = list(self.sizes.values())[dataset]
        if not size:
            return np.empty(0, np.int64)
        passes = range(start // size, -(-(start + count) // size))
        # The 1 at the end: epochs are seeded by [seed, epoch], which numpy takes for [seed, epoch, 0, 0].
        seeds = ([self.seed, dataset, number, 1] for number in passes)
        samples = [np.empty(0, np.int64), *(np.random.default_rng(seed).permutation(size) for seed in seeds)]
        return np.concatenate(samples)[start % size :][:count]

    def set_position(self, epoch: int, start: int = 0) -> None:
        """Continue in `epoch` after `start` of its batches, counted over all processes."""
        self.epoch, self.start = epoch, start

    def num_batches(self) -> int:
        """Batches of an epoch over all processes, the same in every epoch."""
        if self.one_task:
            return sum(-(-count // self.batch_size) for count in self._checked_counts())
        if self.max_tokens is None:
            return -(-self.num_samples() // self.batch_size)
        if self._num_batches is None:  # each batch holds an equal share of the tokens, and up to one sample more
            # A mixture's samples depend on the epoch, and all epochs should have as many batches: the first one's count.
            epoch, self.epoch = self.epoch, 0
            lengths = self._lengths_of(self._checked_order(np.random.default_rng([self.seed, 0])))
            self.epoch = epoch
            assert self._all_lengths is not None
            longest = int(self._all_lengths.max())
            if self.max_tokens < 3 * longest:
                raise ConfigError(
                    f"training.max_tokens is {self.max_tokens}, but the longest sample has {longest} tokens: expected at "
                    f"least {3 * longest}, so that batches have similar sizes. Raise it, or shorten texts with the "
                    "preprocessor's max_length."
                )
            self._num_batches = -(-int(lengths.sum()) // (self.max_tokens - longest))
        return self._num_batches

    def __len__(self) -> int:
        """Steps of an epoch."""
        return -(-self.num_batches() // self.world_size)

    def __iter__(self) -> Iterator[Draw]:
        """The steps from the current position on."""
        order, cuts = self._plan()
        last = len(cuts) - 1
        in_step = self.world_size * self.accumulated  # batches of a whole step
        usual = len(order) / last * in_step if self.max_tokens else None  # samples of one

        def samples(first: int, number: int) -> SampleOrder:
            """The samples of `number` batches of all processes."""
            return order[cuts[first] : cuts[min(first + number * self.world_size, last)]]

        for batch in range(self.start, last, self.world_size):
            together = samples(batch, 1)
            place, batches = self._place_in_step(batch, last)
            of_step = samples(batch - place * self.world_size, batches)
            mine = batch + self.rank
            # A process that is left without a batch at the end repeats a sample that weighs nothing.
            pairs = order[cuts[mine] : cuts[mine + 1]] if mine < last else together[:1]
            counted = len(pairs) if mine < last else 0
            weight = counted * self.world_size * batches / (usual or len(of_step))
            seed = int(np.random.SeedSequence([self.seed, self.epoch, mine]).generate_state(1)[0])
            step = Step(self._totals(of_step), batches, place)
            yield Draw(list(map(tuple, pairs.tolist())), self._totals(together), weight, seed, step)

    def _totals(self, drawn: SampleOrder) -> dict[str, int]:
        """How many samples were drawn of each dataset, without those of which there is none."""
        counts = np.bincount(drawn[:, 0], minlength=len(self.sizes)).tolist()
        return {name: count for name, count in zip(self.sizes, counts, strict=True) if count}

    def _place_in_step(self, batch: int, last: int) -> tuple[int, int]:
        """Where in its optimizer step a batch is, counted from 0, and how many batches each process has in the step.

        Lightning steps after each `accumulated` batches of an epoch and at its end. A run that continues on another number
        of processes than before may begin within a step.
        """
        whole = len(self)
        begin = whole - -(-(last - self.start) // self.world_size)
        number = begin + (batch - self.start) // self.world_size  # of this batch in the epoch, as Lightning counts
        first = number // self.accumulated * self.accumulated
        end = min(first + self.accumulated, max(number + 1, whole if self.most_batches is None else self.most_batches))
        return number - max(first, begin), end - max(first, begin)

    def _plan(self) -> tuple[SampleOrder, Ints]:
        """The current epoch's order, and where its batches begin and the last one ends."""
        random = np.random.default_rng([self.seed, self.epoch])
        order = self._checked_order(random)
        if self.one_task:
            return one_task_batches(order, self.batch_size)
        if self.length_window:
            per_batch = self.batch_size if self.max_tokens is None else -(-len(order) // self.num_batches())
            of_window = np.arange(len(order)) // (per_batch * self.length_window)
            order = order[np.lexsort((self._lengths_of(order), of_window))]
        cuts = self._cuts(order)
        if not self.length_window:
            return order, cuts
        batches = np.split(order, cuts[1:-1])
        windows = [batches[i : i + self.length_window] for i in range(0, len(batches), self.length_window)]
        shuffled = [window[i] for window in windows for i in random.permutation(len(window))]
        return np.concatenate(shuffled), offsets([len(batch) for batch in shuffled])

    def _checked_counts(self) -> list[int]:
        """`counts()`, after checking its form."""
        counts = np.asarray(found := self.counts())
        if counts.shape != (len(self.sizes),) or not np.issubdtype(counts.dtype, np.integer):
            raise ConfigError(
                f"The sampler {type(self).__name__} counts {found!r:.100}, expected a list with a whole number for each "
                f"of the datasets {', '.join(self.sizes)}."
            )
        return [int(count) for count in counts]

    def _checked_order(self, random: np.random.Generator) -> SampleOrder:
        """An epoch's order, after checking its form and that all of its samples exist."""
        name, order = type(self).__name__, np.asarray(self.order(random))
        if order.ndim != 2 or order.shape[1] != 2 or not np.issubdtype(order.dtype, np.integer):
            raise ConfigError(
                f"The sampler {name} orders an array {order.shape} of {order.dtype}, expected whole numbers (samples, 2): "
                "dataset_idx and sample_idx."
            )
        if len(order) != self.num_samples():
            raise ConfigError(
                f"The sampler {name} orders {len(order)} samples, but num_samples() is {self.num_samples()}."
            )
        sizes, (datasets, samples) = np.array(list(self.sizes.values())), order.T
        known = (datasets >= 0) & (datasets < len(sizes))
        wrong = order[~(known & (samples >= 0) & (samples < sizes[np.where(known, datasets, 0)]))]
        if len(wrong):
            raise ConfigError(
                f"The sampler {name} orders {len(wrong)} samples that do not exist, the first one is (dataset_idx, "
                f"sample_idx) = {tuple(wrong[0].tolist())}. Sizes of the datasets: {sizes.tolist()}."
            )
        return order

    def _cuts(self, order: SampleOrder) -> Ints:
        if self.max_tokens is None:
            return np.append(np.arange(0, len(order), self.batch_size), len(order))
        ends, batch = np.cumsum(self._lengths_of(order)), np.arange(number := self.num_batches())
        cuts = np.searchsorted(ends, ends[-1] * batch / number)
        # No batch is empty, even if an epoch has much shorter samples than the first, whose batches were counted.
        cuts = np.minimum(np.maximum.accumulate(cuts - batch), len(order) - number) + batch
        return np.append(cuts, len(order))

    def _lengths_of(self, order: SampleOrder) -> Ints:
        """Tokens of the samples of an order, (samples,)."""
        assert self.lengths is not None, "batches by length need the lengths"
        if self._all_lengths is None:
            self._all_lengths = np.concatenate([np.asarray(part, dtype=np.int64) for part in self.lengths()])
        found: Ints = self._all_lengths[offsets(list(self.sizes.values()))[order[:, 0]] + order[:, 1]]
        return found


def one_task_batches(order: SampleOrder, batch_size: int) -> tuple[SampleOrder, Ints]:
    """An order whose batches are of one dataset each, and where they begin and the last one ends.

    Each dataset's samples are cut in their order, and a batch comes where the middle one of its samples was: datasets keep
    their proportions in every part of the epoch.
    """
    batches = [
        place[i : i + batch_size]
        for place in (np.flatnonzero(order[:, 0] == idx) for idx in np.unique(order[:, 0]))
        for i in range(0, len(place), batch_size)
    ]
    batches.sort(key=lambda places: int(places[len(places) // 2]))
    return order[np.concatenate(batches)], offsets([len(places) for places in batches])


def pairs_of(samples: Iterable[Ints]) -> SampleOrder:
    """(dataset_idx, sample_idx) of each dataset's samples, dataset after dataset."""
    return np.concatenate([np.stack([np.full(len(mine), idx), mine], axis=1) for idx, mine in enumerate(samples)])
