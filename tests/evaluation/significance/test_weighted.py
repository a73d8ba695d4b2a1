import numpy as np
import pytest
import torch
from scipy import stats
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_f1_score  # Lightning brings it

from mtlrank.evaluation.significance.weighted import ENTITY_MEASURES, statistic

REGRESSION = {
    "MSE": lambda labels, predictions: ((predictions - labels) ** 2).mean(),
    "MAE": lambda labels, predictions: np.abs(predictions - labels).mean(),
    "R2": lambda labels, predictions: 1 - ((predictions - labels) ** 2).mean() / labels.var(),
    "Pearson": lambda labels, predictions: stats.pearsonr(labels, predictions).statistic,
    "Spearman": lambda labels, predictions: stats.spearmanr(labels, predictions).statistic,
}
CLASSIFICATION = {
    "Accuracy": lambda labels, predictions: multiclass_accuracy(predictions, labels, 5, average="micro"),
    "MacroF1": lambda labels, predictions: multiclass_f1_score(predictions, labels, 5, average="macro"),
}


def sample(seed, num_items=40, num_units=15):
    """Rounded, so that there are ties; every unit has an item."""
    draw = np.random.default_rng(seed)
    labels = draw.normal(size=num_items).round(1)
    predictions = (labels + draw.normal(size=(2, num_items))).round(1)
    units = draw.permutation(np.concatenate([np.arange(num_units), draw.integers(0, num_units, num_items - num_units)]))
    return labels, predictions, units


def repeated(weights, units):
    """The items that weights of units stand for."""
    return np.repeat(np.arange(len(units)), weights[units])


@pytest.mark.parametrize("measure", REGRESSION)
@pytest.mark.parametrize("seed", range(3))
def test_weights_mean_repetition_for_regressions(measure, seed):
    labels, predictions, units = sample(seed)
    weights = np.random.default_rng(seed).integers(0, 4, (15, 6))
    ours = statistic(measure, labels, predictions, units)(weights.astype(float))
    for run in range(2):
        for resample in range(6):
            items = repeated(weights[:, resample], units)
            expected = REGRESSION[measure](labels[items], predictions[run, items])
            assert ours[run, resample] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("measure", CLASSIFICATION)
@pytest.mark.parametrize("seed", range(3))
def test_weights_mean_repetition_for_classifications(measure, seed):
    draw = np.random.default_rng(seed)
    _, _, units = sample(seed)
    labels, predictions = draw.integers(0, 4, 40), draw.integers(0, 5, (2, 40))  # a class that is only predicted
    names = np.array(["a", "b", "c", "d", "e"])
    weights = draw.integers(0, 3, (15, 6))
    ours = statistic(measure, names[labels], names[predictions], units)(weights.astype(float))
    for run in range(2):
        for resample in range(6):
            items = repeated(weights[:, resample], units)
            expected = CLASSIFICATION[measure](torch.tensor(labels[items]), torch.tensor(predictions[run, items]))
            assert ours[run, resample] == pytest.approx(float(expected), abs=1e-6)


def naive_entities(tags):
    """(first, end, type) of runs of words, read letter by letter."""
    text = "".join({"B": "b", "I": "i", "O": "o"}[tag[0]] for tag in tags)
    found, place = set(), 0
    while place < len(tags):
        end = place + 1
        if text[place] != "o":
            while end < len(tags) and text[end] == "i" and tags[end][2:] == tags[place][2:]:
                end += 1
            found.add((place, end, tags[place][2:]))
        place = end
    return found


@pytest.mark.parametrize("measure", ENTITY_MEASURES)
@pytest.mark.parametrize("seed", range(3))
def test_weights_mean_repetition_for_entities(measure, seed):
    """Units are one or more texts; an entity never goes on in the next text."""
    draw = np.random.default_rng(seed)
    sequences = np.sort(draw.integers(0, 20, 120))
    units = sequences // 2  # of two texts each
    names = np.array(["O", "B-A", "I-A", "B-B", "I-B"])
    labels = names[draw.integers(0, 5, 120)]
    predictions = np.where(draw.random((2, 120)) < 0.5, labels, names[draw.integers(0, 5, (2, 120))])
    weights = draw.integers(0, 3, (10, 6))
    ours = statistic(measure, labels, predictions, units, sequences)(weights.astype(float))
    for run in range(2):
        for resample in range(6):
            hits = found = wanted = 0
            for text in np.unique(sequences):
                times, words = weights[text // 2, resample], sequences == text
                true, told = naive_entities(labels[words]), naive_entities(predictions[run][words])
                hits, found, wanted = (
                    hits + times * len(true & told),
                    found + times * len(told),
                    wanted + times * len(true),
                )
            precision, recall = hits / found, hits / wanted
            f1 = 2 * precision * recall / (precision + recall)
            expected = {"EntityF1": f1, "EntityPrecision": precision, "EntityRecall": recall}[measure]
            assert ours[run, resample] == pytest.approx(expected)


def test_spearman_by_hand():
    labels, predictions = np.array([1.0, 2.0, 3.0]), np.array([[1.0, 3.0, 2.0]])
    values = statistic("Spearman", labels, predictions, np.arange(3))
    weights = np.array([[1.0, 1.0, 2.0], [1.0, 1.0, 0.0], [1.0, 0.0, 1.0]])
    assert values(weights)[0] == pytest.approx([0.5, 1.0, 1.0])


@pytest.mark.parametrize("measure", ["Pearson", "Spearman", "R2"])
def test_a_resample_of_one_value_has_no_correlation(measure):
    labels, predictions = np.array([0.1, 0.2, 0.7]), np.array([[0.3, 0.1, 0.7]])
    values = statistic(measure, labels, predictions, np.arange(3))
    assert values(np.array([[0.0], [3.0], [0.0]])).tolist() == [[0.0]]
