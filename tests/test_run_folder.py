import os
from pathlib import Path

import pytest

from mtlrank import run_folder
from mtlrank.errors import ConfigError, StorageError
from mtlrank.storage import read_json, write_json


def test_a_folder_with_a_run_of_another_config_is_refused_unless_forced(config, tmp_path):
    config = {**config, "output_dir": str(tmp_path)}
    run_folder.claim(run_folder.output_folder(config), config)
    assert run_folder.output_folder({**config, "test": False}) == tmp_path
    assert run_folder.output_folder({**config, "prepare": {**config["prepare"], "num_workers": 3}}) == tmp_path
    with pytest.raises(ConfigError, match=r"another config \(it differs in 1 key: seed: 42 there, 7 now\)"):
        run_folder.output_folder({**config, "seed": 7})
    assert run_folder.output_folder({**config, "seed": 7, "force": True}) == tmp_path
    (tmp_path / "metrics.json").touch()
    older = read_json(tmp_path / "run.json")
    assert older.pop("training.max_steps", 1) is None
    write_json(tmp_path / "run.json", older)
    assert run_folder.holds(tmp_path, config)
    assert not run_folder.holds(tmp_path, {**config, "seed": 7})


@pytest.mark.parametrize("force", [False, True])
def test_what_is_no_run_is_not_replaced(config, tmp_path, force):
    (tmp_path / "model").mkdir()
    with pytest.raises(ConfigError, match=r"is not the folder of a run, and training would replace model there\."):
        run_folder.output_folder({**config, "output_dir": str(tmp_path), "force": force})


def test_what_another_user_owns_is_found_before_it_would_be_replaced(tmp_path, monkeypatch):
    inside = tmp_path / "evaluation" / "trec2019"
    inside.mkdir(parents=True)
    (inside / "metrics.json").touch()
    run_folder.check_replaceable(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != inside)  # root may write anywhere
    with pytest.raises(StorageError, match="evaluation/trec2019 cannot be replaced"):
        run_folder.check_replaceable(tmp_path)


def test_a_folder_is_not_claimed_before_training_starts(config, tmp_path):
    run_folder.output_folder({**config, "output_dir": str(tmp_path)})
    assert list(tmp_path.iterdir()) == []
