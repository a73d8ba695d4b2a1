"""Models of many families with random weights, their exports, and the scores of both."""

import json
import random

import pytest
import torch
from tokenizers import Tokenizer, processors
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    CamembertConfig,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    MPNetConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    XLMRobertaConfig,
)

from mtlrank import embedded, export, rank
from mtlrank.storage import write_json
from tests import decoders
from tests.deberta import deberta
from tests.saved_models import composed, save_labelled, settings

SIZE = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
CONFIGS = {
    "bert": (BertConfig, SIZE),
    "electra": (ElectraConfig, {**SIZE, "embedding_size": 16}),
    "roberta": (RobertaConfig, {**SIZE, "max_position_embeddings": 200, "type_vocab_size": 1}),
    "xlm-roberta": (XLMRobertaConfig, {**SIZE, "max_position_embeddings": 200, "type_vocab_size": 1}),
    "camembert": (CamembertConfig, {**SIZE, "max_position_embeddings": 200, "type_vocab_size": 1}),
    "deberta-v2": (deberta, {**SIZE, "position_buckets": 32, "max_position_embeddings": 512}),
    "distilbert": (DistilBertConfig, {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 64}),
    "modernbert": (ModernBertConfig, {**SIZE, "local_attention": 8, "global_attn_every_n_layers": 2}),
    "mpnet": (MPNetConfig, SIZE),
    **dict.fromkeys(decoders.KINDS),
}
LABELS = {"trec2019": {}, "msm_sem_sim": {"mean": 2.5, "std": 1.3}, "msm_ner": {"classes": ["PER", "LOC"]}}
LENGTHS = {"max_length": 96, "max_query_length": 16}


def write_body(folder, family, **tokenizer):
    """A model folder without weights: the family's config, and the tiny vocabulary with the family's special tokens.

    `tokenizer` holds settings of it that are unlike the family's.
    """
    if family in decoders.KINDS:
        decoders.tokenizer(ends_texts=True).save_pretrained(folder)
        decoders.config(family, initializer_range=0.2).save_pretrained(folder)
        return folder
    kind, size = CONFIGS[family]
    core = Tokenizer.from_file(str(embedded.folder() / "tiny-bert" / "tokenizer.json"))
    if family.endswith(("roberta", "camembert")):
        core.post_processor = processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2), trim_offsets=False)
    names = {f"{role}_token": f"[{role.upper()}]" for role in ("pad", "unk", "cls", "sep", "mask")}
    inputs = ["input_ids", "attention_mask", *(["token_type_ids"] if family in ("bert", "electra") else [])]
    values = {"model_input_names": inputs, **names, **tokenizer}
    PreTrainedTokenizerFast(tokenizer_object=core, **values).save_pretrained(folder)
    if stock := values.get("tokenizer_class"):
        write_json(folder / "tokenizer_config.json", {**names, "tokenizer_class": stock})
    special = {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
    lively = {"initializer_range": 0.2}  # as strongly as trained weights
    kind(vocab_size=core.get_vocab_size(), **size, **special, **lively).save_pretrained(folder)
    return folder


def write_classifier(folder, family, dtype=torch.float32, **settings):
    """A published cross-encoder: a sequence classifier with random weights, beside a tokenizer that cuts."""
    write_body(folder, family)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.model_max_length = LENGTHS["max_length"]
    tokenizer.save_pretrained(folder)
    config = AutoConfig.from_pretrained(folder, **settings)
    AutoModelForSequenceClassification.from_config(config).to(dtype).save_pretrained(folder)
    return folder


def text_pairs():
    """Queries of up to the length that is kept, passages from a word to more than fit, and repeated special tokens."""
    docs = [line.split("\t")[1] for line in (embedded.folder() / "docs.tsv").read_text().splitlines()]
    draw = random.Random(0)
    queries = [" ".join(" ".join(draw.sample(docs, 2)).split()[: draw.randint(1, 10)]) for _ in range(90)]
    lengths = [1, 5, 30, 80, 85, 90, 95, 100, 300]
    texts = [" ".join(" ".join(draw.sample(docs, 20)).split()[: lengths[i % len(lengths)]]) for i in range(90)]
    return list(zip(queries, texts, strict=True))


def save(folder, family, *words, spread=3.0, labels=LABELS, tokenizer=None):
    """A model with random weights on a body of a family."""
    body = write_body(folder / "body", family, **(tokenizer or {}))
    cut = [f"datamodule.dataset.datasets.{k}.preprocessor.{n}={v}" for k in LABELS for n, v in LENGTHS.items()]
    tasks, body = (
        "tasks=[trec2019,msm_sem_sim,msm_ner]",
        [f"model.body.backbone={body}", "model.body.initialisation=null"],
    )
    return save_labelled(folder / "model", composed(tasks, *body, *cut, *words), labels, spread)


def head_of(kind, head="trec2019", layer=-1):
    return [f"model/heads@model.heads.{head}={kind}", f"model.heads.{head}.pooler.layers=[{layer}]"]


def save_bert(folder):
    """A model on BERT with two heads that stock classifiers can hold."""
    return save(folder, "bert", *head_of("cls"), *head_of("cls", "msm_sem_sim"))


MLP_ON_CLS = ["model/heads@model.heads.trec2019=cls", "model.heads.trec2019._target_=mtlrank.model.head.MLP"]
LINEAR_ON_AVERAGE = [
    "model/heads@model.heads.trec2019=average",
    "model.heads.trec2019._target_=mtlrank.model.head.Linear",
]


def exported(model, folder, head="trec2019", layout="transformers", **values):
    wanted = {"model_dir": model, "head": head, "output_dir": folder, "format": layout, **values}
    return export.run(settings("export", **wanted))


def ranked(model, pairs, folder, head="trec2019"):
    """mtlrank's own scores."""
    rows = [{"query_id": f"q{i}", "doc_id": f"d{i}", "query": q, "text": t} for i, (q, t) in enumerate(pairs)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rank.run(settings("rank", model_dir=model, head=head, input=folder / "pairs.jsonl", output=folder / "s.tsv"))
    return torch.tensor([float(line.split("\t")[2]) for line in (folder / "s.tsv").read_text().splitlines()])


@torch.inference_mode()
def by_transformers(folder, pairs, dtype=torch.float32):
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=dtype).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    scores = []
    for start in range(0, len(pairs), 32):
        queries, texts = zip(*pairs[start : start + 32], strict=True)
        inputs = tokenizer(list(queries), list(texts), truncation=True, padding=True, return_tensors="pt")
        scores.append(model(**inputs).logits[:, 0].float())
    return torch.cat(scores)


def by_sentence_transformers(folder, pairs):
    library = pytest.importorskip("sentence_transformers")
    return torch.from_numpy(library.CrossEncoder(str(folder), device="cpu").predict(pairs))


def assert_equal_scores(found, expected):
    assert expected.std() > 0.1, "scores that do not differ show nothing"
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
