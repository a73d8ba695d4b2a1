"""Encoders of unknown families: what is used as it is, and what is refused."""

import pytest
import torch
from transformers import (
    AutoModel,
    CLIPTextConfig,
    ConvBertConfig,
    DebertaV2Config,
    FNetConfig,
    LayoutLMConfig,
    LongformerConfig,
    LongformerModel,
    MPNetConfig,
    PerceiverConfig,
    SqueezeBertConfig,
)

from mtlrank.errors import ConfigError
from mtlrank.model.body import MTLBody, Part
from tests.batches import batch

SIZE = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


def body(folder, config):
    torch.manual_seed(1)
    AutoModel.from_config(config).save_pretrained(folder)
    return MTLBody(str(folder)).eval()


def first_states(model, data):
    parts = [Part([2], len(data.second_starts), len(data.input_ids), "first")]
    packed = data.input_ids, data.token_type_ids, data.cu_seqlens
    return model.encode(*packed, parts, data.max_seqlen, data.second_starts)[0][0]


@pytest.mark.parametrize(
    "config", [LayoutLMConfig(**SIZE), SqueezeBertConfig(**SIZE, embedding_size=32)], ids=lambda each: each.model_type
)
def test_a_family_that_calls_its_pooler_works_without_it(tmp_path, config):
    """The pooler's weights would be saved, and never learn."""
    model = body(tmp_path, config)
    assert first_states(model, batch([7, 3])).shape == (2, 32)
    assert not [name for name in model.state_dict() if "pooler" in name]


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (
            ConvBertConfig(**SIZE, embedding_size=32),
            "what it makes of a text depends on the texts beside it in a batch",
        ),
        (FNetConfig(**SIZE), "what it makes of a text depends on the texts beside it in a batch"),
        (CLIPTextConfig(**SIZE), "its first token does not read the tokens after it"),
        (PerceiverConfig(d_model=32, d_latents=32, num_latents=4, vocab_size=50), "it fails with AttributeError"),
    ],
    ids=lambda value: getattr(value, "model_type", ""),
)
def test_an_encoder_that_would_be_used_wrongly_is_refused(tmp_path, config, reason):
    with pytest.raises(ConfigError, match=rf"cannot be used here: {reason}.*\. Choose another one\."):
        body(tmp_path, config)


def test_trying_an_encoder_changes_nothing(tmp_path):
    AutoModel.from_config(MPNetConfig(**SIZE, pad_token_id=1)).save_pretrained(tmp_path)
    for pretrained in (True, False):
        torch.manual_seed(3)
        plain = AutoModel.from_pretrained(tmp_path) if pretrained else AutoModel.from_config(MPNetConfig(**SIZE))
        drawn = torch.rand(1)
        torch.manual_seed(3)
        model = MTLBody(str(tmp_path), pretrained=pretrained)
        assert torch.equal(torch.rand(1), drawn)
        assert model.encoder.training is plain.training


def test_the_first_token_of_a_longformer_reads_the_whole_text(tmp_path):
    """As in its own classifier; other tokens read a window."""
    sizes = {**SIZE, "attention_window": 4, "max_position_embeddings": 80, "pad_token_id": 1}
    model, data = body(tmp_path, LongformerConfig(**sizes)), batch([40, 30])
    own = LongformerModel.from_pretrained(tmp_path).eval()
    for start, end, found in zip([0, 40], [40, 70], first_states(model, data), strict=True):
        ids = data.input_ids[None, start:end]
        whole = torch.zeros_like(ids)
        whole[:, 0] = 1
        torch.testing.assert_close(own(ids, global_attention_mask=whole)[0][0, 0], found, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(own(ids)[0][0, 0], found, atol=1e-3)


@pytest.mark.filterwarnings("error")
def test_layers_run_again_if_the_family_can(tmp_path):
    torch.manual_seed(1)
    AutoModel.from_config(DebertaV2Config(**SIZE)).save_pretrained(tmp_path / "deberta")
    AutoModel.from_config(MPNetConfig(**SIZE, pad_token_id=1)).save_pretrained(tmp_path / "mpnet")
    data, gradients = batch([7, 3]), []
    for again in (False, "first"):
        model = MTLBody(str(tmp_path / "deberta"), activation_checkpointing=again).train()
        torch.manual_seed(3)
        first_states(model, data)[:, 0].sum().backward()
        gradients.append([weight.grad for weight in model.parameters() if weight.grad is not None])
    assert any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    for kept, again in zip(*gradients, strict=True):
        torch.testing.assert_close(kept, again)
    with pytest.raises(
        ConfigError, match="activation_checkpointing is true, but the layers of .*mpnet. cannot run again"
    ):
        MTLBody(str(tmp_path / "mpnet"), activation_checkpointing=True)
