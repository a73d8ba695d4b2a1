"""Reading trained models: whose classes have changed, and which are replaced meanwhile."""

import shutil

import pytest

from mtlrank import evaluate, export, rank, train, trained_head
from mtlrank.composing.selection import select_tasks
from mtlrank.datamodule.preprocessor import LoadedPreprocessor
from mtlrank.errors import DataError
from mtlrank.trained_head import load_head, read_trained
from tests.loop.runs import settings
from tests.saved_models import composed, save_labelled, save_random
from tests.saved_models import settings as settings_of

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own


def test_a_model_tells_of_own_classes_that_have_changed_since_it_was_trained(data_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(tmp_path)
    own = tmp_path / "my_own_pooler.py"
    own.write_text("from mtlrank.model.head.pooler import Average\n\n\nclass Mine(Average):\n    pass\n")
    words = ["model.heads.msm_bm25.pooler._target_=my_own_pooler.Mine", "+trainer.limit_train_batches=2"]
    config = settings(data_dir, tmp_path / "run", "tasks=[msm_bm25]", "training.epochs=1", "test=false", *words)
    train.run(config)
    read_trained(tmp_path / "run" / "model", trust=True)
    assert "your own classes" not in capsys.readouterr().err
    own.write_text(own.read_text().replace("pass", '"""Another."""'))
    read_trained(tmp_path / "run" / "model", trust=True)
    assert "your own classes have changed since " in capsys.readouterr().err


@pytest.mark.parametrize("becomes", ["other", None])
@pytest.mark.parametrize(
    ("step", "place", "words"),
    [
        (rank, trained_head, {"head": "trec2019", "input": "pairs.tsv", "output": "out"}),
        (export, trained_head, {"head": "trec2019", "output_dir": "out"}),
        (export, export, {"format": "multitask", "output_dir": "out"}),
        (evaluate, evaluate, {"tasks": "[trec2019]", "output_dir": "out"}),
    ],
    ids=["rank", "export", "export multitask", "evaluate"],
)
def test_a_model_that_is_replaced_while_it_is_read_is_refused(
    config, datasets, data_dir, tmp_path, monkeypatch, step, place, words, becomes
):
    """As by a training in the same folder, of other heads: after its config was read, and before its weights are."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.tsv").write_text("q\td\ta query\ta text\n")
    for name, tasks in (("model", ["trec2019", "msm_ner"]), ("other", ["trec2019"])):
        few = select_tasks({**config, "tasks": tasks})
        save_random(tmp_path / name, few, {key: datasets[key] for key in tasks})
    name = step.__name__.rpartition(".")[2]
    more = {"data_dir": data_dir} if step is evaluate else {}
    of_step = settings_of(name, model_dir=tmp_path / "model", **more, **words)
    read = place.read_trained

    def then_replace(*args, **kwargs):
        found = read(*args, **kwargs)
        shutil.rmtree(tmp_path / "model")
        if becomes:
            (tmp_path / becomes).rename(tmp_path / "model")
        return found

    monkeypatch.setattr(place, "read_trained", then_replace)
    with pytest.raises(
        DataError, match="model was replaced or removed while it was read. The same command starts again"
    ):
        step.run(of_step)
    assert not (tmp_path / "out").exists()


def test_a_preprocessor_of_ones_own_reads_new_texts_too(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_own_preprocessor.py").write_text(
        "from mtlrank.datamodule.preprocessor import LoadedPreprocessor, Preprocessor\n\n\n"
        "class Backwards(Preprocessor):\n    def load(self):\n        loaded = super().load()\n"
        "        ids = loaded.ids\n"
        "        loaded.ids = lambda texts: ids([' '.join(reversed(text.split())) for text in texts])\n"
        "        return loaded\n"
    )
    own = "datamodule.dataset.datasets.trec2019.preprocessor._target_=my_own_preprocessor.Backwards"
    model = save_labelled(tmp_path / "model", composed("tasks=[trec2019]", own), {"trec2019": {}}, 1.0)
    head = load_head(model, None, trust=True)
    plain = LoadedPreprocessor(head.preprocessor().tokenizer, head.preprocessor().lengths, None)
    for preprocessor in (head.preprocessor(), head.preprocessor(max_passages=3)):
        (found,), (expected,) = preprocessor.ids(["a red car"]), plain.ids(["car red a"])
        assert found.tolist() == expected.tolist() != plain.ids(["a red car"])[0].tolist()
    assert (head.preprocessor().lengths.max_passages, head.preprocessor(3).lengths.max_passages) == (1, 3)
