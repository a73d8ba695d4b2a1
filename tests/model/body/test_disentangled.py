"""DeBERTa on packed tokens: its states and gradients are those of Hugging Face's own padded forward."""

import pytest
import torch
from transformers import AutoModel

from mtlrank.model.body import MTLBody, Part
from mtlrank.model.body.attention import Attending, Packing, in_a_grid, one_by_one
from mtlrank.model.body.disentangled import _by_distance, distances_in
from tests.batches import batch
from tests.deberta import deberta
from tests.model.body.test_body import SIZE, total

LENGTHS = [7, 1, 36, 12]  # shorter and longer than the buckets, and than half of the positions


def save(folder, **settings):
    """A DeBERTa with random weights that attend strongly to positions."""
    torch.manual_seed(1)
    AutoModel.from_config(deberta(**SIZE, initializer_range=0.2, **settings)).save_pretrained(folder)


def by_mtlrank(model, data):
    """States of all layers, (layers, cells, hidden), 0 in cells without a token."""
    parts = [Part(range(4), len(LENGTHS), sum(LENGTHS))]
    packed = data.input_ids, data.token_type_ids, data.cu_seqlens
    (states,) = model.encode(*packed, parts, data.max_seqlen, data.second_starts)
    packing = Packing(data.cu_seqlens, sum(LENGTHS), data.max_seqlen)
    grid = torch.stack(states).new_zeros(4, len(LENGTHS) * data.max_seqlen, 32)
    return grid.index_copy(1, packing.cells, torch.stack(states))


def by_hugging_face(encoder, data):
    """The same."""
    mask = Packing(data.cu_seqlens, sum(LENGTHS), data.max_seqlen).mask[:, 0, 0]
    ids = torch.zeros(mask.shape, dtype=torch.long).masked_scatter(mask, data.input_ids)
    states = encoder(input_ids=ids, attention_mask=mask.long(), output_hidden_states=True).hidden_states
    return torch.stack(states).flatten(1, 2) * mask.flatten()[None, :, None]


@pytest.mark.parametrize("ways", ["p2c|c2p", "c2p", "p2c"])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("buckets", [4, 40, 256, -1])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"norm_rel_ebd": "none", "position_biased_input": True, "type_vocab_size": 2},
        {"max_relative_positions": 18},  # shorter than texts, and fewer than half of 40 buckets
    ],
    ids=str,
)
def test_states_and_gradients_equal_hugging_faces(tmp_path, ways, shared, buckets, more):
    save(tmp_path, pos_att_type=ways, share_att_key=shared, position_buckets=buckets, **more)
    model, data = MTLBody(str(tmp_path)).eval(), batch(LENGTHS)
    reference = AutoModel.from_pretrained(tmp_path).eval()
    found, expected = by_mtlrank(model, data), by_hugging_face(reference, data)
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
        distances = distances_in(encoder, packing, torch.device("cpu"))
        assert len(distances.embeddings) == count
        assert len(distances.buckets) == 2 * longest + 1
        assert sorted(set(distances.buckets.tolist())) == list(range(count))


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
        found.append(way(*leaves, Attending(packing, bias=bias)))
        total([found[-1]]).backward()
        gradients.append(leaves.grad)
    torch.testing.assert_close(*found)
    torch.testing.assert_close(*gradients)
    assert not torch.allclose(found[0], one_by_one(*states, Attending(packing)))
    assert torch.allclose(found[1], in_a_grid(*states, Attending(packing, dropout=dropout, bias=bias))) == (
        dropout == 0.0
    )


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"conv_kernel_size": 3}, "with a convolution"),
        ({"relative_attention": False}, "without attention to distances"),
        ({"pos_att_type": None}, "without attention to distances"),
    ],
)
def test_others_of_its_type_run_padded(tmp_path, settings, told, capsys):
    save(tmp_path, **settings)
    model = MTLBody(str(tmp_path)).eval()
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "runs padded" in line)
    assert line.startswith(f"mtlrank: {tmp_path} (deberta-v2 {told}) runs padded, at full depth")
    data = batch(LENGTHS)
    torch.testing.assert_close(by_mtlrank(model, data), by_hugging_face(model.encoder, data), atol=1e-5, rtol=1e-5)


def test_embeddings_of_distances_rest_where_no_layer_is_read(tmp_path):
    """As all that a step may not use, so that several processes do not wait for their gradients."""
    save(tmp_path)
    model = MTLBody(str(tmp_path))
    resting = {id(weight) for weight in model.deeper_than(0)}
    names = {name for name, weight in model.encoder.named_parameters() if id(weight) not in resting}
    assert {name.partition(".")[0] for name in names} == {"embeddings"}
    assert not {id(weight) for weight in model.encoder.encoder.rel_embeddings.parameters()} & {
        id(weight) for weight in model.deeper_than(1)
    }
