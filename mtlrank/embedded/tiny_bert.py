"""A BERT small enough to learn from scratch in minutes, with a WordPiece vocabulary learnt from the collection."""

import json
import string
from collections import Counter
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from mtlrank.storage import write_json

_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_SIZE = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 128}


def write_tiny_bert(target: Path, texts: list[str]) -> None:
    """Write a Hugging Face model folder without weights: the body is made from its config."""
    tokenizer = _learn(texts)
    config = {
        **_SIZE,
        "model_type": "bert",
        "architectures": ["BertModel"],
        "vocab_size": tokenizer.get_vocab_size(),
        "max_position_embeddings": 256,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "pad_token_id": 0,
    }
    write_json(target / "config.json", config)
    write_json(target / "tokenizer.json", json.loads(tokenizer.to_str()))  # its own order of keys varies
    roles = ("pad", "unk", "cls", "sep", "mask")
    special = {f"{role}_token": token for role, token in zip(roles, _SPECIAL, strict=True)}
    write_json(
        target / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", "model_max_length": 256, **special}
    )


def _learn(texts: list[str]) -> Tokenizer:
    """Learn a lower-casing WordPiece vocabulary: the words seen twice, and single characters to spell the others.

    tokenizers' own trainer breaks ties differently in each process, and the same seed must give the same vocabulary.
    """
    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    counts = Counter(
        word
        for text in texts
        for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))
        if word.isalpha()
    )
    letters = string.ascii_lowercase + string.digits
    pieces = [*letters, *(f"##{letter}" for letter in letters), *string.punctuation]
    pieces += sorted(word for word, count in counts.items() if count > 1 and len(word) > 1)
    vocab = {piece: i for i, piece in enumerate(_SPECIAL + pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", vocab["[SEP]"]), ("[CLS]", vocab["[CLS]"]))
    tokenizer.add_special_tokens(_SPECIAL)
    return tokenizer
