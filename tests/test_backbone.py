"""Where bodies come from: folders, and a hub's cache as huggingface_hub lays it out."""

import json
from functools import partial

import pytest
import sentencepiece
import torch
from huggingface_hub import constants
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.processors import BertProcessing
from transformers import (
    BartConfig,
    BertConfig,
    BertGenerationConfig,
    BertModel,
    DebertaV2Config,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    PhiConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    T5Config,
    XLNetConfig,
)

from mtlrank import embedded
from mtlrank.annotate.annotator import Pair
from mtlrank.annotate.sem_sim import SemanticSimilarity
from mtlrank.backbone import check_kind, load_config, load_encoder, load_tokenizer, max_length_of
from mtlrank.datamodule.preprocessor import Preprocessor
from mtlrank.errors import ConfigError

COMMITS = {"main": "a" * 40, "v1": "b" * 40}
WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "one", "two"]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Two revisions of a model in the cache of a hub that cannot be reached; their weights differ by revision."""
    model = tmp_path / "models--us--tiny"
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.post_processor = BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    for name, commit in COMMITS.items():
        (model / "refs").mkdir(parents=True, exist_ok=True)
        (model / "refs" / name).write_text(commit)
        torch.manual_seed(len(name))
        size = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
        BertModel(BertConfig(vocab_size=len(WORDS), **size)).save_pretrained(model / "snapshots" / commit)
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]"
        ).save_pretrained(model / "snapshots" / commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return model


def first_weight(name):
    return load_encoder(name, pretrained=True).embeddings.word_embeddings.weight[1, 0].item()


def test_a_hub_name_may_end_in_a_branch_a_tag_or_a_commit(hub):
    branch, tag = first_weight("us/tiny"), first_weight("us/tiny@v1")
    assert branch != tag
    assert first_weight("us/tiny@main") == branch
    assert first_weight(f"us/tiny@{COMMITS['v1']}") == tag
    assert load_tokenizer("us/tiny@v1")("one")["input_ids"] == [1, 4, 2]


def test_a_revision_that_is_not_there_is_named(hub):
    with pytest.raises(ConfigError, match="Cannot load the config of 'us/tiny@v2'"):
        load_encoder("us/tiny@v2", pretrained=True)


def test_code_that_comes_with_a_body_is_not_run_whatever_is_typed(tmp_path, monkeypatch):
    """transformers would ask, and take the next line of the input for an answer."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModel": "own.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(own))
    for load in (load_config, load_tokenizer, partial(load_encoder, pretrained=False)):
        with pytest.raises(ConfigError, match="Cannot load the"):
            load(str(tmp_path))
    assert not (tmp_path / "ran").exists()


def test_a_folder_keeps_its_at_sign(hub, tmp_path, monkeypatch):
    (hub / "snapshots" / COMMITS["v1"]).rename(tmp_path / "tiny@mine")
    monkeypatch.chdir(tmp_path)
    assert first_weight("tiny@mine") == first_weight(str(tmp_path / "tiny@mine"))


def test_an_annotators_model_too(hub):
    def similarity(name):
        return next(iter(SemanticSimilarity(name).records([Pair("q", "d", "one", "two")], {}))).label

    assert similarity("us/tiny") == similarity("us/tiny@main") != similarity("us/tiny@v1")


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (PhiConfig(), "phi: a family that writes text"),
        (GPT2Config(architectures=["GPT2ForSequenceClassification"]), "gpt2: a family that writes text"),
        (XLNetConfig(), "xlnet: a family that writes text"),
        (BertConfig(is_decoder=True), "bert: is_decoder is true"),
        (T5Config(), "t5: an encoder-decoder"),
        (BartConfig(), "bart: an encoder-decoder"),
    ],
    ids=lambda value: getattr(value, "model_type", ""),
)
def test_what_is_no_encoder_is_refused_by_its_config(tmp_path, config, reason):
    config.save_pretrained(tmp_path)
    with pytest.raises(
        ConfigError,
        match=f"is no encoder \\({reason}\\). Choose an encoder, .* or a decoder of these families: llama, ",
    ):
        max_length_of(str(tmp_path))


def test_an_encoder_of_a_family_that_also_writes_text_is_none_the_less_one():
    embedding = Gemma3TextConfig(use_bidirectional_attention=True)
    for config in (RobertaConfig(), BertGenerationConfig(), embedding, LlamaConfig()):
        check_kind("name", config)


def test_a_tokenizer_that_is_a_sentencepiece_model_only_is_read(tmp_path):
    """As that of microsoft/deberta-v3-base is published."""
    texts = [line.split("\t")[1] for line in (embedded.folder() / "docs.tsv").read_text().splitlines()]
    names = {"pad": "[PAD]", "bos": "[CLS]", "eos": "[SEP]", "unk": "[UNK]"}
    ids = {f"{role}_id": number for number, role in enumerate(names)}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_prefix=str(tmp_path / "spm"),
        vocab_size=400,
        minloglevel=2,
        **ids,
        **{f"{role}_piece": piece for role, piece in names.items()},
    )
    DebertaV2Config().save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false, "vocab_type": "spm"}')
    loaded = Preprocessor(str(tmp_path)).load()
    assert loaded.template == ((1,), (2,), (2,), 1)
    expected = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "spm.model"))
    for text, tokens in zip(texts[:20], loaded.encode(texts[:20]), strict=True):
        assert tokens.ids.tolist() == expected.encode(text)
        assert tokens.offsets[-1].tolist() == [len(text) - 1, len(text)]  # a full stop
