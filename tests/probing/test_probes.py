import numpy as np
import pytest
import torch

from mtlrank.probing.labels import Coded
from mtlrank.probing.layers import LayerProbes
from mtlrank.probing.mdl import log_frequencies, portion_ends, uniform_bits
from mtlrank.probing.probes import Probes, Training, class_costs, fit, logits_of
from mtlrank.probing.vectors import Vectors

ENDS = portion_ends(720, [3.2, 6.25, 12.5, 25, 50, 100])


def vectors(num_items=800, num_layers=4, dim=8):
    values = torch.randn(num_items, num_layers, dim, generator=torch.Generator().manual_seed(1))
    return Vectors(values, np.arange(num_items))


def compression(of, labels, **settings):
    coded = Coded(labels, 2, "two classes")
    bits = LayerProbes("x", of, 80, Training(hidden_dim=16, **settings)).bits(coded, ENDS)
    return [uniform_bits(ENDS[-1], 2) / length for length in bits]


def test_a_signal_is_found_in_the_layer_that_has_it():
    of = vectors()
    labels = torch.randint(2, (800,), generator=torch.Generator().manual_seed(2))
    of.values[:, 2, 0] = labels * 6.0 - 3
    found = compression(of, labels)
    assert found[2] > 2.5
    assert max(found[:2] + found[3:]) < 1.1


def test_random_labels_cannot_be_compressed():
    labels = torch.randint(2, (800,), generator=torch.Generator().manual_seed(2))
    assert compression(vectors(), labels) == pytest.approx([1.0] * 4, abs=0.06)


@pytest.mark.parametrize("hidden_dim", [0, 16])
def test_side_by_side_each_probe_is_what_it_would_be_alone(hidden_dim):
    of = vectors(num_items=200)
    labels = (of.values[:, 2, 0] + of.values[:, 1, 1] > 0).long()
    how = Training(hidden_dim=hidden_dim, epochs=12, patience=2)

    def logits(layers):
        part = Vectors(of.values[:, layers], of.items)
        learnt, held = part.part(50, 200), part.part(0, 50)
        probes = fit(learnt, labels[50:], held, labels[:50], torch.zeros(2), class_costs, how)
        return logits_of(probes, part)

    together = logits([0, 1, 2, 3])
    for layer in range(4):
        torch.testing.assert_close(logits([layer])[0], together[layer], atol=1e-5, rtol=1e-4)


def test_an_untrained_probe_says_how_frequent_the_labels_are():
    bias = log_frequencies(torch.tensor([0, 0, 0, 1]), 2)
    probabilities = Probes(3, 8, bias, hidden_dim=4)(torch.randn(5, 3, 8)).softmax(-1)
    torch.testing.assert_close(probabilities, torch.tensor([4 / 6, 2 / 6]).expand(3, 5, 2))


def test_what_does_not_help_on_held_out_items_is_not_kept():
    of = vectors(num_items=120)
    labels = torch.randint(2, (120,), generator=torch.Generator().manual_seed(3))
    wrong = 1 - labels[:60]
    held = Vectors(of.values[60:].clone(), of.items[60:])
    held.values[:] = of.values[:60]  # the same vectors with the other label: all that is learnt is wrong
    probes = fit(of.part(0, 60), labels[:60], held, wrong, torch.zeros(2), class_costs, Training(hidden_dim=0))
    assert float(logits_of(probes, of).abs().max()) == 0
