"""Coverage of intervals, and the time that the tests take.

    python -m benchmarks.significance

Prints the share of 1,000 simulated comparisons whose 95 % interval contains the true difference, by queries, seeds and the
standard deviation of seeds (that of queries is 1, of both together .4); then CPU-seconds of the interval and the
randomisation test for one measure.
"""

import argparse
import time

import numpy as np

from mtlrank.dtypes import Floats
from mtlrank.evaluation.significance import confidence_interval, randomisation_test
from mtlrank.evaluation.significance.resampling import Swaps
from mtlrank.evaluation.significance.weighted import mean, statistic

DIFFERENCE = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", type=float, default=1.0, help="of the comparisons and items, for a quick look")
    part = parser.parse_args().part
    for num_queries in (2, 3, 5, 9, 10, 43, 500):
        for num_seeds, spread in ((1, 0.0), (2, 0.1), (3, 0.1), (5, 0.1), (2, 0.4), (3, 0.4), (5, 0.4)):
            share = np.mean([holds(num_queries, num_seeds, spread, number) for number in range(int(1000 * part))])
            what = f"{num_queries} queries, {num_seeds} seeds that vary by {spread}"
            print(f"{what}: the interval contains the truth in {share:.1%}", flush=True)
    for num_items in (43, int(10_000 * part)):
        for measure in ("MSE", "Pearson", "Spearman"):
            interval, test = seconds(measure, num_items)
            print(f"{num_items:,} items, {measure}: interval {interval:.2f} s, randomisation test {test:.2f} s")


def holds(num_queries: int, num_seeds: int, spread: float, number: int) -> bool:
    """Whether the interval of one simulated comparison contains the true difference."""
    draw = np.random.default_rng(number)
    queries = draw.normal(0, 1, num_queries)
    seeds = draw.normal(0, spread, (2, num_seeds, 1))
    noise = draw.normal(0, 0.4, (2, num_seeds, num_queries))
    runs = np.concatenate(queries + seeds + noise + np.array([0, DIFFERENCE])[:, None, None])
    interval = confidence_interval(mean(runs, np.arange(num_queries)), num_queries, num_seeds, 1000, number)
    assert interval is not None
    return interval[0] <= DIFFERENCE <= interval[1]


def seconds(measure: str, num_items: int) -> tuple[float, float]:
    """CPU-seconds for two runs whose predictions are swapped item by item."""
    draw = np.random.default_rng(0)
    labels = draw.normal(size=num_items)
    predictions, items = labels + draw.normal(size=(2, num_items)), np.arange(num_items)
    both = statistic(measure, labels, predictions, items)
    pooled = statistic(measure, np.tile(labels, 2), predictions.reshape(1, -1), np.arange(2 * num_items))

    def swapped(swaps: Swaps) -> Floats:
        first = swaps.astype(np.float64)
        difference: Floats = (pooled(np.concatenate([first, 1 - first])) - pooled(np.concatenate([1 - first, first])))[
            0
        ]
        return difference

    started = time.process_time()
    confidence_interval(both, num_items, 1)
    between = time.process_time()
    randomisation_test(swapped, num_items)
    return between - started, time.process_time() - between


if __name__ == "__main__":
    main()
