"""Decoders with random weights, and a tokenizer like theirs, which puts nothing between two texts or behind them."""

import json
from functools import cache

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoModel, LlamaConfig, MistralConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen3Config

from mtlrank import embedded

END = "<|endoftext|>"
SIZE = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
}
KINDS = {
    "llama": (LlamaConfig, {}),
    "mistral": (MistralConfig, {"sliding_window": 5}),
    "qwen2": (Qwen2Config, {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}),
    "qwen3": (Qwen3Config, {"head_dim": 8}),
}


@cache
def _vocabulary(special):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=3000, special_tokens=list(special), initial_alphabet=letters)
    tokenizer.train_from_iterator((embedded.folder() / "docs.tsv").read_text().splitlines(), trainer)
    return tokenizer.to_str()


def tokenizer(*, ends_texts=False, special=(END, "<pad>"), pad="<pad>"):
    """Byte-level pairs, as in Qwen and Llama 3; with `ends_texts`, each text ends in a token, as in embedding models."""
    core = Tokenizer.from_str(_vocabulary(special))
    if ends_texts:
        pair = f"$A {END} $B {END}"
        core.post_processor = processors.TemplateProcessing(single=f"$A {END}", pair=pair, special_tokens=[(END, 0)])
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token=END, pad_token=pad)


def with_word_marks(*, by_normalizer):
    """Pairs of letters with a mark before each word, also the first of a text: as in Llama 2 and Mistral."""
    core, mark = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>")), "\u2581"
    if by_normalizer:
        core.normalizer = normalizers.Sequence([normalizers.Prepend(mark), normalizers.Replace(" ", mark)])
    else:
        core.pre_tokenizer = pre_tokenizers.Metaspace(mark, prepend_scheme="first", split=False)
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=2000, special_tokens=special[:3], max_token_length=12)
    words = [word for line in (embedded.folder() / "docs.tsv").read_text().splitlines() for word in line.split()]
    core.train_from_iterator(words, trainer)
    vocabulary = {**core.get_vocab(), **{token: 5000 + number for number, token in enumerate(special[3:])}}
    merges = [tuple(pair) for pair in json.loads(core.to_str())["model"]["merges"]]
    core.model = models.BPE(vocabulary, merges, byte_fallback=True, unk_token="<unk>")
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def config(kind, **settings):
    """The config of a small decoder."""
    made, own = KINDS[kind]
    return made(**{"vocab_size": len(tokenizer()), **SIZE, **own, "eos_token_id": 0, "pad_token_id": 1, **settings})


def write_decoder(folder, kind, **settings):
    """A model folder of a decoder, with its tokenizer."""
    AutoModel.from_config(config(kind, **settings)).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder
