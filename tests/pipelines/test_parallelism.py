"""A study and the judging of heads can be throttled, when they are compiled or submitted."""

import pytest
import yaml

from pipelines.compile import write
from pipelines.mtl_ranking import mtl_ranking
from pipelines.mtl_ranking_nodes import mtl_ranking_nodes
from pipelines.mtl_study import mtl_study
from pipelines.submit import app as submit
from pipelines.upload import app as upload


def limits(spec):
    """Of each loop that has one."""
    tasks = [
        task
        for component in (spec["root"], *spec["components"].values())
        for task in component.get("dag", {}).get("tasks", {}).values()
    ]
    assert sum("parameterIterator" in task for task in tasks) == 3
    return {task["taskInfo"]["name"]: task["iteratorPolicy"] for task in tasks if "iteratorPolicy" in task}


@pytest.mark.parametrize(
    ("pipeline", "loop"), [(mtl_study, "try-each"), (mtl_ranking, "judge-each"), (mtl_ranking_nodes, "judge-each")]
)
def test_pods_that_may_have_gpus_are_limited(pipeline, loop, tmp_path):
    for limit, found in ((None, {}), (4, {loop: {"parallelismLimit": 4}}), (None, {})):
        write(tmp_path / "pipeline.yaml", pipeline, limit)
        assert limits(next(yaml.safe_load_all((tmp_path / "pipeline.yaml").read_text()))) == found


def test_a_submission_and_an_upload_may_say_it(server, invoke):
    words = ["--pipeline", "mtl_study", "--parallelism", "2"]
    assert invoke(submit, *words).exit_code == 0
    assert invoke(upload, *words).exit_code == 0
    sent = server.only("runs")["pipeline_spec"], server.only("versions")["pipeline_spec"]
    for spec in sent:
        assert limits(spec.get("pipeline_spec", spec)) == {"try-each": {"parallelismLimit": 2}}


@pytest.mark.parametrize(
    ("words", "complaint"),
    [(["--parallelism", "0"], "--parallelism"), (["--package", "x.yaml", "--parallelism", "2"], "compiled already")],
)
def test_a_wrong_limit_is_told(server, invoke, words, complaint):
    result = invoke(submit, *words)
    assert result.exit_code == 2
    assert complaint in result.stderr
    assert not server.store.runs
