"""DeBERTa on packed tokens: its states and gradients are those of Hugging Face's own padded forward."""

import pytest
import torch
from transformers import AutoModel, DebertaV2Config

from mtlrank.model.body import MTLBody, Part
from mtlrank.model.body.attention import Packing, in_a_grid, one_by_one
from mtlrank.model.body.disentangled import _by_distance, distances
from tests.batches import batch
from tests.model.body.test_body import DISENTANGLED, SIZE, total

LENGTHS = [7, 1, 36, 12]  # shorter and longer than the buckets, and than half of the positions


def save(folder, **settings):
    """A DeBERTa with random weights that attend strongly to positions."""
    torch.manual_seed(1)
    config = DebertaV2Config(**{**SIZE, **DISENTANGLED, "initializer_range": 0.2, **settings})
    AutoModel.from_config(config).save_pretrained(folder)


def by_mtlrank(model, data):
    """(states of all layers in a padded grid, gradients)"""
    parts = [Part(range(4), len(LENGTHS), sum(LENGTHS))]
    packed = data.input_ids, data.token_type_ids, data.cu_seqlens
    (states,) = model.encode(*packed, parts, data.max_seqlen, data.second_starts)
    packing = Packing(data.cu_seqlens, sum(LENGTHS), data.max_seqlen)
    grid = torch.stack(states).new_zeros(4, len(LENGTHS) * data.max_seqlen, 32)
    return grid.index_copy(1, packing.cells, torch.stack(states)), packing


@pytest.mark.parametrize("ways", ["p2c|c2p", "c2p", "p2c", None])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("buckets", [4, 256, -1])
@pytest.mark.parametrize("more", [{}, {"norm_rel_ebd": "none", "position_biased_input": True, "type_vocab_size": 2}])
def test_states_and_gradients_equal_hugging_faces(tmp_path, ways, shared, buckets, more):
    save(tmp_path, pos_att_type=ways, share_att_key=shared, position_buckets=buckets, **more)
    model, data = MTLBody(str(tmp_path)).eval(), batch(LENGTHS)
    reference = AutoModel.from_pretrained(tmp_path).eval()
    found, packing = by_mtlrank(model, data)
    mask = packing.mask[:, 0, 0]
    ids = torch.zeros(mask.shape, dtype=torch.long).masked_scatter(mask, data.input_ids)
    padded = reference(input_ids=ids, attention_mask=mask.long(), output_hidden_states=True).hidden_states
    expected = torch.stack(padded).flatten(1, 2) * mask.flatten()[None, :, None]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    total([found]).backward()
    total([expected]).backward()
    theirs = dict(reference.named_parameters())
    learning = {name: weight for name, weight in model.encoder.named_parameters() if weight.grad is not None}
    assert learning.keys() == {name for name, weight in theirs.items() if weight.grad is not None}
    for name, weight in learning.items():
        torch.testing.assert_close(weight.grad, theirs[name].grad, atol=1e-3, rtol=1e-3, msg=name)


def test_a_product_lies_where_its_distance_is():
    """By hand: two tokens, and the positions -2, -1, 0, 1, 2 as numbers."""
    states, positions = torch.tensor([[[1.0], [10.0]]]), torch.tensor([[[-2.0], [-1.0], [0.0], [1.0], [2.0]]])
    assert _by_distance(states, positions).tolist() == [[[0.0, 1.0], [-10.0, 0.0]]]


def test_only_the_buckets_that_occur_are_computed(tmp_path):
    """With `position_buckets` of 4, the distances 0, 1 and 2 have their own buckets, and all that are further share one."""
    save(tmp_path)
    encoder = MTLBody(str(tmp_path)).encoder
    for longest, count in ((1, 3), (2, 5), (36, 7)):
        packing = Packing(torch.tensor([0, longest], dtype=torch.int32), longest, longest)
        apart = distances(encoder, packing, torch.device("cpu"))
        assert len(apart.embeddings) == count
        assert len(apart.buckets) == 2 * longest + 1
        assert sorted(set(apart.buckets.tolist())) == list(range(count))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_sequences_in_a_grid_have_the_bias_that_they_have_one_by_one(dropout):
    """With an empty second text among the sequences, as in a body that reads texts apart."""
    packing = Packing(torch.tensor([0, 7, 7, 10, 22, 27], dtype=torch.int32), 27, 12)
    states, table = torch.randn(3, 1, 2, 27, 8), torch.randn(2, 25, 8)

    def bias(query, key):
        return _by_distance(query, table) + _by_distance(key, table).transpose(-1, -2)

    found, gradients = [], []
    for way in (one_by_one, in_a_grid):
        leaves = states.clone().requires_grad_()
        found.append(way(*leaves, None, 0.0, packing, bias=bias))
        total([found[-1]]).backward()
        gradients.append(leaves.grad)
    torch.testing.assert_close(*found)
    torch.testing.assert_close(*gradients)
    assert not torch.allclose(found[0], one_by_one(*states, None, 0.0, packing))
    assert torch.allclose(found[1], in_a_grid(*states, None, dropout, packing, bias=bias)) == (dropout == 0.0)


@pytest.mark.parametrize("settings", [{"conv_kernel_size": 3}, {"relative_attention": False}], ids=str)
def test_others_of_its_type_run_padded(tmp_path, settings, capsys):
    save(tmp_path, **settings)
    model = MTLBody(str(tmp_path)).eval()
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "runs padded" in line)
    assert line.startswith(f"mtlrank: {tmp_path} (deberta-v2) runs padded, at full depth")
    data = batch(LENGTHS)
    found, packing = by_mtlrank(model, data)
    mask = packing.mask[:, 0, 0]
    ids = torch.zeros(mask.shape, dtype=torch.long).masked_scatter(mask, data.input_ids)
    expected = model.encoder(input_ids=ids, attention_mask=mask.long()).last_hidden_state.flatten(0, 1)
    torch.testing.assert_close(found[-1], expected * mask.flatten()[:, None], atol=1e-5, rtol=1e-5)
