"""What a decoder's tokens read, and where they stand; that its layers equal Hugging Face's is shown with the encoders'."""

import copy

import pytest
import torch
from transformers import AutoModel

from mtlrank.errors import ConfigError
from mtlrank.model.body import Part
from tests import decoders
from tests.batches import batch
from tests.model.body.test_body import CONFIGS, LENGTHS, body, encode, whole


@pytest.mark.parametrize("kind", decoders.KINDS)
def test_the_last_token_of_a_decoder_reads_the_whole_text_and_of_a_bidirectional_one_all_do(tmp_path, kind):
    folder = decoders.write_decoder(tmp_path, kind, num_hidden_layers=6)  # windows are short
    data = batch([9])
    for bidirectional in (False, True):
        model = body(folder, bidirectional=bidirectional)
        changed = data._replace(input_ids=data.input_ids.clone())
        changed.input_ids[4] += 1
        states, others = (encode(model, each, [Part([6], 1, 9)])[0][0] for each in (data, changed))
        moved = {token for token in range(9) if not torch.equal(states[token], others[token])}
        assert moved == set(range(9) if bidirectional else range(4, 9))
        assert model.is_causal != bidirectional


@pytest.mark.parametrize("kind", decoders.KINDS)
def test_a_bidirectional_decoder_is_hugging_faces_with_its_config(tmp_path, kind):
    model, data = body(decoders.write_decoder(tmp_path, kind), bidirectional=True), batch(LENGTHS)
    model.encoder.config.save_pretrained(tmp_path)
    states = whole(model, data)[3]
    reference = AutoModel.from_pretrained(tmp_path, attn_implementation="eager").eval()
    for start, end in zip(data.cu_seqlens, data.cu_seqlens[1:], strict=False):
        expected = reference(input_ids=data.input_ids[None, start:end]).last_hidden_state[0]
        torch.testing.assert_close(states[start:end], expected, atol=1e-5, rtol=1e-5)
    assert not body(tmp_path).is_causal


def test_an_encoder_is_bidirectional_already(tmp_path):
    AutoModel.from_config(copy.deepcopy(CONFIGS["bert"])).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="model.body.bidirectional is true, but .* is so already: expected false"):
        body(tmp_path, bidirectional=True)


@pytest.mark.parametrize("kind", ["llama3", "yarn", "linear"])
def test_positions_of_long_texts_are_those_of_each_text(tmp_path, kind):
    rope = {"rope_type": kind, "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 8}
    rope |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0} if kind == "llama3" else {}
    model, data = body(decoders.write_decoder(tmp_path, "llama", rope_parameters=rope)), batch(LENGTHS)
    states = whole(model, data)[3]
    reference = AutoModel.from_pretrained(tmp_path, attn_implementation="eager").eval()
    for start, end in zip(data.cu_seqlens, data.cu_seqlens[1:], strict=False):
        expected = reference(input_ids=data.input_ids[None, start:end]).last_hidden_state[0]
        torch.testing.assert_close(states[start:end], expected, atol=1e-5, rtol=1e-5)


def test_positions_that_depend_on_the_batch_are_refused(tmp_path):
    folder = decoders.write_decoder(
        tmp_path, "llama", rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    )
    with pytest.raises(ConfigError, match="has the rope_type dynamic, whose positions depend on the longest text"):
        body(folder)
