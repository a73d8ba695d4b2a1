"""The packed body gives what Hugging Face's own padded forward gives, and no layer runs that no head reads."""

import copy
import json

import pytest
import torch
from transformers import (
    AutoModel,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    MPNetConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

from mtlrank.errors import ConfigError
from mtlrank.model.body import MTLBody, Part
from mtlrank.model.body.attention import Packing
from mtlrank.model.body.family import hidden_of
from tests import decoders
from tests.batches import batch
from tests.deberta import deberta

SIZE = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
CONFIGS = {
    "bert": BertConfig(**SIZE),
    "roberta": RobertaConfig(**SIZE, max_position_embeddings=40, pad_token_id=1),
    "electra": ElectraConfig(**SIZE, embedding_size=16),
    "xlm-roberta": XLMRobertaConfig(**SIZE, max_position_embeddings=40, pad_token_id=1),
    "deberta-v2": deberta(**SIZE),
    "distilbert": DistilBertConfig(vocab_size=50, dim=32, n_layers=3, n_heads=4, hidden_dim=64),
    "modernbert": ModernBertConfig(**SIZE, local_attention=8, global_attn_every_n_layers=2, pad_token_id=0),
    **{kind: decoders.config(kind, vocab_size=50) for kind in decoders.KINDS},
    "mpnet": MPNetConfig(**SIZE, max_position_embeddings=40, pad_token_id=1),
}
PADDED = ("mpnet",)
TAKES_PADDED = ("deberta-v2",)  # whose own layers take padded batches only
LENGTHS = [7, 3, 12, 5]


@pytest.fixture(params=CONFIGS)
def folder(request, tmp_path):
    """A model folder with random weights."""
    torch.manual_seed(1)
    AutoModel.from_config(copy.deepcopy(CONFIGS[request.param])).save_pretrained(tmp_path)
    return tmp_path


def body(folder, **settings):
    return MTLBody(str(folder), **settings).eval()


def total(states):
    """A sum in which every number has a weight of its own: that of squares is the same for all that is normalised."""
    weights = torch.Generator().manual_seed(5)
    return sum((state * torch.randn(state.shape, generator=weights)).sum() for state in states)


def encode(model, data, parts):
    packed = data.input_ids, data.token_type_ids, data.cu_seqlens
    return model.encode(*packed, parts, data.max_seqlen, data.second_starts)


def whole(model, data):
    """The states of all layers, of all sequences."""
    layers = range(model.num_layers + 1)
    return encode(model, data, [Part(layers, len(LENGTHS), sum(LENGTHS))])[0]


def test_every_layer_equals_hugging_faces(folder):
    model, data = body(folder), batch(LENGTHS)
    reference = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    states = whole(model, data)
    assert len(states) == 4
    for start, end in zip(data.cu_seqlens, data.cu_seqlens[1:], strict=False):
        expected = reference(input_ids=data.input_ids[None, start:end], output_hidden_states=True).hidden_states
        for state, layer in zip(states, expected, strict=True):
            torch.testing.assert_close(state[start:end], layer[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("separate", [1, 2, "all"])
def test_texts_are_read_apart_up_to_a_layer(folder, separate):
    """Up to there, a pair's states are those of its texts as sequences of their own; above, they depend on both."""
    if json.loads((folder / "config.json").read_text())["model_type"] in PADDED:
        with pytest.raises(ConfigError, match="separate_layers is .*, but the layers of .* are not known: expected 0"):
            body(folder, separate_layers=separate)
        return
    model, pairs = body(folder, separate_layers=separate), batch(LENGTHS, second=[3, 0, 8, 2])
    texts = batch([4, 3, 3, 4, 8, 3, 2])._replace(input_ids=pairs.input_ids)
    layers = range(model.num_layers + 1)
    states = whole(model, pairs)
    alone = encode(body(folder), texts, [Part(layers, 7, sum(LENGTHS))])[0]
    for layer in layers:
        if layer <= model.separate_layers:
            torch.testing.assert_close(states[layer], alone[layer], atol=1e-5, rtol=1e-5)
        else:
            tokens = slice(4, 7) if model.is_causal else slice(4)  # of the text that reads the other one
            assert not torch.allclose(states[layer][tokens], alone[layer][tokens], atol=1e-3)
            if model.config.model_type != "modernbert":  # its window is short
                torch.testing.assert_close(states[layer][7:10], alone[layer][7:10], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("only", [None, "first", "last"])
def test_shallow_parts_leave_a_body_that_reads_texts_apart(tmp_path, only):
    AutoModel.from_config(copy.deepcopy(CONFIGS["bert"])).save_pretrained(tmp_path)
    model, data = body(tmp_path, separate_layers=2), batch(LENGTHS, second=[3, 0, 8, 2])
    everything = whole(model, data)
    parts = [Part([3], 2, 10, only), Part([1], 2, 17, only)]
    (deep,), (shallow,) = encode(model, data, parts)
    rows = {None: (slice(10), slice(10, 27)), "first": ([0, 7], [10, 22]), "last": ([6, 9], [21, 26])}[only]
    torch.testing.assert_close(deep, everything[3][rows[0]], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(shallow, everything[1][rows[1]], atol=1e-5, rtol=1e-5)


RUNS = [(2, 10), (1, 12), (1, 5)]  # sequences and tokens of parts
STARTS = [0, 10, 22, 27]


@pytest.mark.parametrize(
    "layers",
    [([3], [3], [1]), ([1, 3], [2], [0]), ([2], [2], [2]), ([0, 1], [0], [0]), ([3], [1], [1]), ([0], [0], [0])],
)
@pytest.mark.parametrize(
    "only", [(None,) * 3, ("first",) * 3, ("last",) * 3, ("first", None, "last"), (None, "last", None)]
)
def test_parts_get_what_the_whole_gives_them(folder, layers, only):
    """Sequences that leave early, and layers of which only some tokens are computed, change nothing for anybody."""
    model, data = body(folder), batch(LENGTHS)
    everything = whole(model, data)
    parts = [Part(*part) for part in zip(layers, *zip(*RUNS, strict=True), only, strict=True)]
    for number, (part, states) in enumerate(zip(parts, encode(model, data, parts), strict=True)):
        tokens = slice(STARTS[number], STARTS[number + 1])
        ends = [i - tokens.start for i in data.cu_seqlens.tolist() if tokens.start <= i <= tokens.stop]
        inside = {None: slice(None), "first": ends[:-1], "last": [end - 1 for end in ends[1:]]}[part.only]
        for layer, state in zip(part.layers, states, strict=True):
            expected = everything[layer][tokens]
            torch.testing.assert_close(state, expected[inside], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("only", [None, "first", "last"])
def test_gradients_equal_those_of_full_depth(folder, only):
    model, data = body(folder), batch(LENGTHS)
    gradients = []
    for early in (False, True):
        model.zero_grad()
        if early:
            (deep,), (shallow,) = encode(model, data, [Part([3], 2, 10, only), Part([1], 2, 17)])
        else:
            states = whole(model, data)
            deep, shallow = states[3][{None: slice(10), "first": [0, 7], "last": [6, 9]}[only]], states[1][10:]
        total([deep, shallow]).backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, full in gradients[0].items():
        torch.testing.assert_close(full, gradients[1][name], atol=1e-4, rtol=1e-4, msg=name)


def test_every_weight_of_the_body_learns(tmp_path):
    AutoModel.from_config(copy.deepcopy(CONFIGS["bert"])).save_pretrained(tmp_path)
    model, data = MTLBody(str(tmp_path)), batch(LENGTHS)
    total(whole(model, data)[3:]).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("kind", ["bert", "deberta-v2", "modernbert"])
def test_activation_checkpointing_changes_no_gradient(tmp_path, kind):
    AutoModel.from_config(copy.deepcopy(CONFIGS[kind])).save_pretrained(tmp_path)
    data, gradients = batch(LENGTHS), []
    for checkpointed in (False, True):
        model = MTLBody(str(tmp_path), attention_dropout=0.2, activation_checkpointing=checkpointed).train()
        torch.manual_seed(3)
        total(whole(model, data)[3:]).backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    for kept, again in zip(*gradients, strict=True):
        torch.testing.assert_close(kept, again)


@pytest.mark.parametrize("kind", [kind for kind in CONFIGS if kind not in (*PADDED, *decoders.KINDS)])
def test_dropout_is_as_set_or_as_the_model_has_it(tmp_path, kind):
    AutoModel.from_config(copy.deepcopy(CONFIGS[kind])).save_pretrained(tmp_path)
    data = batch(LENGTHS)

    def differs(**settings):
        """Whether two passes in training give different states."""
        model = MTLBody(str(tmp_path), **settings).train()
        return not torch.equal(whole(model, data)[-1], whole(model, data)[-1])

    assert not differs(dropout=0.0)
    assert differs(dropout=0.3)
    assert differs() == (kind != "modernbert")  # whose own is 0


def test_dropout_that_a_family_does_not_have_is_refused(tmp_path):
    folder = decoders.write_decoder(tmp_path, "llama")
    assert body(folder, dropout=0.0)
    with pytest.raises(
        ConfigError, match="model.body.dropout is 0.1, but llama has no dropout of hidden states: expec"
    ):
        body(folder, dropout=0.1)


def test_dropout_of_an_unknown_family_is_refused(tmp_path):
    AutoModel.from_config(copy.deepcopy(CONFIGS[PADDED[0]])).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="model.body.dropout is 0.0, but its name in the config of .* is not known"):
        MTLBody(str(tmp_path), dropout=0.0)


@pytest.mark.parametrize("is_half", [False, True])
@pytest.mark.parametrize("kind", [kind for kind in CONFIGS if kind not in (*PADDED, *TAKES_PADDED)])
def test_a_layer_learns_as_its_own_forward_does(tmp_path, kind, is_half):
    """With dropout, and in the same order: outputs and gradients are the same to the bit, but for what is added in bf16."""
    AutoModel.from_config(copy.deepcopy(CONFIGS[kind])).save_pretrained(tmp_path)
    model = MTLBody(str(tmp_path), attention_dropout=0.2).train()
    start, packing = torch.randn(1, 27, 32), Packing(torch.tensor([0, 7, 10, 22, 27], dtype=torch.int32), 27, 12)
    arguments = {"packing": packing, **model.family.arguments(model.encoder, start, packing)(0)}
    ways = [
        lambda layer, hidden: model.family.run(layer, hidden, None, arguments),
        lambda layer, hidden: hidden_of(layer(hidden, **arguments)),
    ]
    outputs, gradients = [], []
    for run in ways:
        model.zero_grad()
        torch.manual_seed(3)
        leaf = start.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=is_half):
            outputs.append(run(model.layers[0], leaf * 1))  # autocast would convert a leaf once
        total([outputs[-1].float()]).backward()
        gradients.append([leaf.grad, *[weight.grad.clone() for weight in model.layers[0].parameters()]])
    assert torch.equal(*outputs)
    torch.testing.assert_close(*gradients, rtol=0.01 if is_half else 0, atol=0.01 if is_half else 0)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", [kind for kind in CONFIGS if kind not in PADDED])
def test_a_gpu_in_half_precision_gives_what_a_cpu_gives(tmp_path, kind):
    AutoModel.from_config(copy.deepcopy(CONFIGS[kind])).save_pretrained(tmp_path)
    model, data = body(tmp_path), batch(LENGTHS)
    expected = whole(model, data)[3]
    model.cuda()
    moved = data._replace(**{n: getattr(data, n).cuda() for n in ("input_ids", "token_type_ids", "cu_seqlens")})
    with torch.autocast("cuda", torch.bfloat16):
        found = whole(model, moved)[3]
    torch.testing.assert_close(found.float().cpu(), expected, atol=0.05, rtol=0.05)


def test_a_folder_that_is_none_is_named():
    with pytest.raises(ConfigError, match="'/nowhere/at/all' is not a folder"):
        MTLBody("/nowhere/at/all")


def test_a_hub_name_that_cannot_be_had_is_named():
    with pytest.raises(ConfigError, match="Cannot load the config of 'no-such/model'"):
        MTLBody("no-such/model")


def test_an_unknown_initialisation_is_refused():
    with pytest.raises(ConfigError, match="model.body.initialisation is 'magic', expected null or mimetic"):
        MTLBody("mtlrank-embedded/tiny-bert", pretrained=False, initialisation="magic")


@pytest.mark.parametrize(
    ("kind", "change", "complaint"),
    [
        ("bert", {"type_vocab_size": 0}, "has type_vocab_size 0, expected at least 1"),
        ("roberta", {"pad_token_id": None}, "has no pad_token_id, from which roberta counts positions"),
    ],
)
def test_a_config_without_what_the_layers_need_is_refused(tmp_path, kind, change, complaint):
    config = copy.deepcopy(CONFIGS[kind])
    config.update(change)
    config.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=complaint):
        body(tmp_path, pretrained=False)


def test_what_a_body_does_not_do_is_said_in_a_line(tmp_path, capsys):
    AutoModel.from_config(copy.deepcopy(CONFIGS["mpnet"])).save_pretrained(tmp_path)
    body(tmp_path, initialisation="mimetic")
    padded, ignored = (line for line in capsys.readouterr().err.splitlines() if str(tmp_path) in line)
    assert padded.startswith(
        f"mtlrank: {tmp_path} (mpnet) runs padded, at full depth and with its own attention dropout. "
    )
    assert ignored == f"mtlrank: model.body.initialisation=mimetic is ignored: {tmp_path} is pretrained"


def test_mimetic_attention_looks_for_similar_tokens():
    torch.manual_seed(0)
    model = MTLBody("mtlrank-embedded/tiny-bert", pretrained=False, initialisation="mimetic")
    attention = model.encoder.encoder.layer[0].attention.self
    torch.testing.assert_close(attention.query.weight, attention.key.weight)
    first_head = attention.query.weight[: attention.attention_head_size]
    torch.testing.assert_close(first_head @ first_head.T, torch.eye(len(first_head)), atol=1e-5, rtol=0)


def learning(model):
    return {name for name, weight in model.named_parameters() if weight.requires_grad}


@pytest.mark.parametrize("kind", [kind for kind in CONFIGS if kind not in PADDED])
@pytest.mark.parametrize(("frozen", "first"), [(0, 0), (1, 2), (0.67, 3), (-2, 3), (3, 4), (-1, 4), ("all", 4)])
def test_the_embeddings_and_first_layers_do_not_learn(tmp_path, kind, frozen, first):
    """`first` is the first layer that learns, with 0 for the embeddings."""
    AutoModel.from_config(copy.deepcopy(CONFIGS[kind])).save_pretrained(tmp_path)
    model = body(tmp_path, frozen_layers=frozen)
    flags = [{weight.requires_grad for weight in layer} for layer in model.by_layer()]
    assert flags == [{number >= first} for number in range(4)]
    assert sum(len(layer) for layer in model.by_layer()) == len(list(model.parameters()))


def test_the_backward_pass_ends_above_frozen_layers(tmp_path):
    AutoModel.from_config(copy.deepcopy(CONFIGS["bert"])).save_pretrained(tmp_path)
    model, data = body(tmp_path, frozen_layers=2), batch(LENGTHS)
    states = whole(model, data)
    assert [state.requires_grad for state in states] == [False, False, False, True]
    reference = body(tmp_path)
    whole(reference, data)[3].square().sum().backward()
    states[3].square().sum().backward()
    for (name, weight), expected in zip(model.named_parameters(), reference.parameters(), strict=True):
        if name in learning(model):
            torch.testing.assert_close(weight.grad, expected.grad, atol=1e-5, rtol=1e-5)
        else:
            assert weight.grad is None


def test_of_a_family_that_is_not_known_all_or_nothing_is_frozen(tmp_path):
    AutoModel.from_config(copy.deepcopy(CONFIGS["mpnet"])).save_pretrained(tmp_path)
    assert not learning(body(tmp_path, frozen_layers="all"))
    with pytest.raises(ConfigError, match="frozen_layers is 2, but the layers of .* are not known: expected 0 or all"):
        body(tmp_path, frozen_layers=2)


def test_more_frozen_layers_than_there_are_is_an_error(tmp_path):
    AutoModel.from_config(copy.deepcopy(CONFIGS["bert"])).save_pretrained(tmp_path)
    with pytest.raises(
        ConfigError, match="model.body.frozen_layers is 'none', expected a number of layers, a share, or"
    ):
        body(tmp_path, frozen_layers="none")
    with pytest.raises(ConfigError, match="model.body.frozen_layers: layer 7 is deeper than the body"):
        body(tmp_path, frozen_layers=7)
