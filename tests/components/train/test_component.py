"""The step itself refuses overrides that would start processes which the pipeline does not know of."""

import pytest
from kfp import dsl

from components.train.component import train
from mtlrank.errors import ConfigError
from tests.components.train.parameters import parameters


@pytest.mark.parametrize("gpus", ["0", "1"])
@pytest.mark.parametrize("override", ["trainer.num_nodes=2", "trainer.devices=2"])
def test_one_process_trains_whatever_overrides_say(tmp_path, gpus, override):
    values = parameters(gpus=gpus, overrides=[override])
    inputs = {name: values[name] for name in train.component_spec.inputs if name in values}
    model = dsl.Model(uri=str(tmp_path / "model"))
    with pytest.raises(ConfigError, match=f"overrides has '{override}', but "):
        train.python_func(**inputs, datasets=[], model=model, metrics=dsl.Metrics())
    assert not (tmp_path / "model").exists()
