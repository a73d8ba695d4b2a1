"""The first step of a study tells what later ones would, of parameters that nobody has checked before."""

from types import SimpleNamespace

import pytest
import yaml

from components.plan.component import plan
from mtlrank.errors import ConfigError
from pipelines.compile import write
from pipelines.mtl_study import mtl_study


def planned(tmp_path, **changes):
    defaults = {name: spec.default for name, spec in mtl_study.component_spec.inputs.items()}
    return plan.python_func(**{**defaults, **changes}, config=SimpleNamespace(path=str(tmp_path / "config")))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sampler": "tempreture"}, "datamodule/sampler has no option 'tempreture'. Did you mean 'temperature'?"),
        ({"tasks": []}, "tasks is empty"),
        ({"shards": ["1/2"]}, "expected all shards of one number"),
        ({"memory": "lots"}, "memory is 'lots'"),
        ({"gpus": "2"}, "gpus is 2: expected 0 or 1"),
        ({"overrides": ["prepare.shard=1/2"]}, "Leave prepare.shard out"),
        ({"overrides": ["seed=3"]}, "the pipeline's parameter seeds sets seed"),
        ({"overrides": ["output_dir=/tmp/x"]}, "the pipeline sets output_dir itself"),
        ({"checkpoints": "here"}, "checkpoints is 'here', which is on a pod's own disk"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, monkeypatch, changes, said):
    monkeypatch.setenv("KFP_POD_NAME", "pod")  # as in a pod
    with pytest.raises(ConfigError) as caught:
        planned(tmp_path, **changes)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_right_is_planned(tmp_path, monkeypatch):
    monkeypatch.delenv("KFP_POD_NAME", raising=False)
    assert len(planned(tmp_path, checkpoints="here", tasks=["msm_ner", "trec2019"])) == 9


def test_a_folder_on_a_volume_is_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KFP_POD_NAME", "pod")
    monkeypatch.setattr("components.check.parameters.Path.is_mount", lambda folder: str(folder) == "/data")
    planned(tmp_path, checkpoints="/data/checkpoints", prepared="/mnt/prepared", tasks=["msm_ner", "trec2019"])
    told = capsys.readouterr().err
    assert "prepared is '/mnt/prepared': without a volume there" in told
    assert "checkpoints" not in told


def test_every_other_step_waits_for_it(tmp_path):
    write(tmp_path / "pipeline.yaml", mtl_study)
    tasks = next(yaml.safe_load_all((tmp_path / "pipeline.yaml").read_text()))["root"]["dag"]["tasks"]
    assert [name for name, task in tasks.items() if "plan" not in task.get("dependentTasks", [])] == ["plan"]
    assert tasks["plan"]["inputs"]["parameters"].keys() == mtl_study.component_spec.inputs.keys()
