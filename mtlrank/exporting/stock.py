"""A head as a stock Hugging Face sequence classifier.

A `CrossEncoderHead` is one already. Stock classifiers have a layer with an activation between the pooled state x and the
score, which `Linear` heads lack. But their score is a single number s = w x + b, and that can be carried through one or two
units of the layer; for a head on classes, each logit through its own:

- GELU, ReLU: f(s) - f(-s) = s, exactly.
- tanh: tanh(e s) / e = s (1 - e^2 s^2 / 3 + ...). With e = 2^-16 the error is below float32's rounding for |s| < 30. So s
  comes in without b and at most as large as x, whatever the unit of the labels, and goes out with both.
- ModernBERT: its activation is a setting (`linear`), but a layer norm follows. Units that are constant, half of them 1 and
  half -1, fix its mean and its deviation; s comes in as e s and -e s with e = 2^-12, which moves the deviation by
  e^2 s^2 / size of it, if most units are constant.
"""

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.normalizers import Prepend, Sequence
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn

from mtlrank.backbone import DECODERS
from mtlrank.datamodule.preprocessor import LoadedPreprocessor
from mtlrank.errors import ConfigError
from mtlrank.exporting.check import Score
from mtlrank.exporting.plain import PlainHead, copy_body, label_settings, other_head, plain_head, stock_config
from mtlrank.model.head import MLP, CrossEncoderHead
from mtlrank.model.head.cross_encoder import CLASSIFIERS
from mtlrank.trained_head import TrainedHead, unfit

_TANH = 2.0**-16
_NORM = 2.0**-12
_READS = {"cls": "reads the first token", "mean": "averages tokens", "lasttoken": "reads the last token"}
# Units of the layer that a logit needs, by what follows the layer.
_UNITS = {nn.Tanh: 1, nn.GELU: 2, nn.ReLU: 2, "head.act": 4}


def write_stock(folder: Path, head: TrainedHead) -> Score:
    """Write the model and its tokenizer; returns how to score with what was written."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    stock_model(head).save_pretrained(folder)
    stock_tokenizer(head).save_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)

    @torch.inference_mode()
    def score(texts: list[tuple[str, ...]]) -> Tensor:
        encoded = tokenizer(*map(list, zip(*texts, strict=True)), truncation=True, padding=True, return_tensors="pt")
        logits: Tensor = model(**encoded).logits
        return logits

    return score


@torch.no_grad()
def stock_model(head: TrainedHead) -> Any:
    """The head and as much of the body as it reads. Raises `ConfigError` for a head that has no such form."""
    from transformers import AutoModelForSequenceClassification

    plain, body = plain_head(head), head.model.body
    model_type = stock_type(head)
    _, *after = CLASSIFIERS[model_type]
    if after and plain.hidden is None and len(plain.bias) > (most := body.out_dim // _UNITS[after[0]]):
        raise ConfigError(
            f"Head {head.name!r} has {len(plain.bias)} classes, and the stock classifier of {model_type} has room for "
            f"{most}. Instead, keep it with format=multitask; or, on BERT, ELECTRA or DeBERTa, train with "
            f"model.heads.{head.key}._target_=mtlrank.model.head.MLP."
        )
    config = stock_config(body, plain.depth, model_type, **_settings(plain, head, model_type))
    model = AutoModelForSequenceClassification.from_config(config).float().eval()
    copy_body(body, plain.depth, getattr(model, model.base_model_prefix))
    for module in model.children():
        if module is not getattr(model, model.base_model_prefix):
            for weight in module.parameters():
                weight.zero_()
    if isinstance(head.module, CrossEncoderHead):
        _fill_published(model, head.module, plain)
    else:
        _fill(model, plain, model_type)
    return model


def stock_type(head: TrainedHead) -> str:
    """The family whose classifier can compute the head; BERT's encoder is also ELECTRA's, whose classifier has a GELU."""
    family, is_mlp = head.model.body.config.model_type, type(head.module) is MLP
    layout = "onnx" if unfit(head.dataset) else "sentence-transformers"
    plain, instead = plain_head(head), f"Instead, format={layout} holds it as it is"
    usual = "lasttoken" if family in DECODERS else "cls"
    if plain.pooling != usual and (family, plain.pooling) != ("modernbert", "mean"):
        raise ConfigError(
            f"Head {head.name!r} {_READS[plain.pooling]}, and the stock classifier of {family} {_READS[usual]}. {instead}; "
            f"or train with {other_head(head)}."
        )
    if family in DECODERS and (is_mlp or plain.bias.any()):
        raise ConfigError(
            f"Head {head.name!r} has a bias, and the stock classifier of {family} is a matrix without one. {instead}."
        )
    if is_mlp and family != "bert" and nn.GELU not in CLASSIFIERS[family]:
        raise ConfigError(f"Head {head.name!r} is an MLP, and the stock classifier of {family} has no GELU. {instead}.")
    return "electra" if is_mlp and family == "bert" else str(family)


def has_stock_type(head: TrainedHead) -> bool:
    """Whether a stock classifier computes the head; if not, sentence-transformers' modules may."""
    try:
        stock_type(head)
    except ConfigError:
        return False
    return True


def is_through_tanh(head: TrainedHead) -> bool:
    """Whether the head is carried through a tanh, by a weight of at least 2^16: float16 cannot hold that."""
    return not isinstance(head.module, CrossEncoderHead) and nn.Tanh in CLASSIFIERS[stock_type(head)]


def stock_tokenizer(head: TrainedHead) -> Any:
    """The tokenizer, which cuts pairs to the length that the head was trained with, and gives what the encoder takes."""
    preprocessor, config = head.preprocessor(), head.model.body.config
    tokenizer = with_template(preprocessor)
    tokenizer.model_max_length = preprocessor.lengths.max_length
    tokenizer.truncation_side = tokenizer.padding_side = "right"  # as mtlrank reads texts
    tokenizer.pad_token = _padding(tokenizer, config, preprocessor.template.suffix[-1:])
    if getattr(config, "type_vocab_size", 0) < 2:  # mtlrank gives all tokens the one type that there is
        tokenizer.model_input_names = [name for name in tokenizer.model_input_names if name != "token_type_ids"]
        tokenizer.init_kwargs["model_input_names"] = tokenizer.model_input_names  # what is saved
    return tokenizer


def _padding(tokenizer: Any, config: Any, end: tuple[int, ...]) -> str:
    """A special token to pad with, which attention leaves out.

    No token of texts, as it would be cut out of their words, and not the one that ends them: stock classifiers of decoders
    read the last token that is no padding.
    """
    special = [number for number, token in tokenizer.added_tokens_decoder.items() if token.special]
    for number in (tokenizer.pad_token_id, config.pad_token_id, *special):
        if number in special and (number,) != end:
            return str(tokenizer.convert_ids_to_tokens(number))
    if len(tokenizer) < config.vocab_size:  # the new token has an embedding
        return "<|padding|>"
    raise ConfigError(
        "The tokenizer has no special token to pad texts with but the one that ends them, and the model no embedding for "
        "another: keep it with format=multitask, which needs none."
    )


def with_template(preprocessor: LoadedPreprocessor) -> Any:
    """The tokenizer, which joins texts as the preprocessor does, whose template may not be the tokenizer's own."""
    from transformers import PreTrainedTokenizerFast

    tokenizer, template = deepcopy(preprocessor.tokenizer), preprocessor.template  # to be changed
    if template == preprocessor.tokenizers_template() and not preprocessor.before_texts:
        return tokenizer
    core = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    names, second = ("before", "between", "after"), template.second_type
    pieces = {name: list(ids) for name, ids in zip(names, template[:3], strict=True) if ids}
    before, between, after = ([name] if name in pieces else [] for name in names)
    core.post_processor = TemplateProcessing(
        single=[*before, "$A", *after],
        pair=[*before, "$A", *between, f"$B:{second}", *(f"{name}:{second}" for name in after)],
        special_tokens=[
            {"id": name, "ids": ids, "tokens": [core.id_to_token(number) for number in ids]}
            for name, ids in pieces.items()
        ],
    )
    if preprocessor.before_texts:
        own = [core.normalizer] if core.normalizer else []
        core.normalizer = Sequence([Prepend(preprocessor.before_texts), *own])
    # Classes of families build a tokenizer of their own kind when they are loaded.
    settings = {**tokenizer.special_tokens_map, "model_input_names": tokenizer.model_input_names}
    return PreTrainedTokenizerFast(tokenizer_object=core, **settings)


def _settings(plain: PlainHead, head: TrainedHead, model_type: str) -> dict[str, Any]:
    own: dict[str, Any] = {}
    is_published = isinstance(head.module, CrossEncoderHead)  # then the body's config describes it
    if model_type == "modernbert" and not is_published:
        own = {"classifier_pooling": plain.pooling, "classifier_activation": "linear", "classifier_bias": True}
    elif model_type == "deberta-v2" and not is_published:
        own = {"pooler_hidden_act": "gelu"}
    elif model_type == "electra" and head.model.body.config.model_type == "bert":
        own = {"embedding_size": head.model.body.out_dim}
    elif model_type in DECODERS:
        own = {"pad_token_id": stock_tokenizer(head).pad_token_id}
    return {
        **own,
        **label_settings(head),
        # Without it, sentence-transformers applies a sigmoid.
        "sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"},
    }


def _fill(model: Any, plain: PlainHead, model_type: str) -> None:
    """Give a family's classifier the weights that compute the head."""
    first, *after = CLASSIFIERS[model_type]
    dense = model.get_submodule(first)
    if not after:
        dense.weight.copy_(plain.weight)
        return
    activation, *norm, last = after
    out = model.get_submodule(last)
    if activation is nn.Tanh:
        through_tanh(dense, out, plain)
    elif plain.hidden is not None:
        dense.load_state_dict(plain.hidden[0].state_dict())
        out.load_state_dict({"weight": plain.weight, "bias": plain.bias})
    elif norm:
        _through_norm(dense, model.get_submodule(norm[0]), out, plain)
    else:
        _through_rectifier(dense, out, plain)


def through_tanh(dense: nn.Linear, out: nn.Linear, plain: PlainHead) -> None:
    """Let `dense`, a tanh and `out` compute a linear head, by the nearly straight middle of the tanh."""
    number, unit = len(plain.bias), plain.weight.norm(dim=1).clamp(min=1.0)
    dense.weight[:number] = _TANH * plain.weight / unit[:, None]
    out.weight[:, :number] = torch.diag(unit) / _TANH
    out.bias.copy_(plain.bias)


def _through_rectifier(dense: nn.Linear, out: nn.Linear, plain: PlainHead) -> None:
    number = len(plain.bias)
    for first, sign in ((0, 1.0), (1, -1.0)):
        units = slice(first, 2 * number, 2)
        dense.weight[units], dense.bias[units] = sign * plain.weight, sign * plain.bias
        out.weight[:, units] = sign * torch.eye(number)


def _through_norm(dense: nn.Linear, norm: nn.LayerNorm, out: nn.Linear, plain: PlainHead) -> None:
    _through_rectifier(dense, out, plain._replace(weight=plain.weight * _NORM, bias=plain.bias * _NORM))
    taken, size = 2 * len(plain.bias), norm.normalized_shape[0]
    dense.bias[taken::2], dense.bias[taken + 1 :: 2] = 1.0, -1.0
    norm.weight.fill_(1.0)
    deviation = ((size - taken) / size + norm.eps) ** 0.5
    out.weight.mul_(deviation / (2 * _NORM))


def _fill_published(model: Any, head: CrossEncoderHead, plain: PlainHead) -> None:
    """Copy the layers; of two outputs only the difference is kept."""
    *hidden, (out, _) = head.layers_in(model)
    for theirs, own in hidden:
        theirs.load_state_dict(own.state_dict())
    out.load_state_dict({"weight": plain.weight, **({} if out.bias is None else {"bias": plain.bias})})
