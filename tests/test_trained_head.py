import pytest

from mtlrank import train
from mtlrank.trained_head import read_trained
from tests.loop.runs import settings

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
