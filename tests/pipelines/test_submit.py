"""Submission, against a server that checks types."""

import json
import re
import subprocess
import sys

import pytest
import yaml

from pipelines.client import ServerError, connect
from pipelines.package import opened
from pipelines.submit import app, submit


def parameters(run):
    return run["runtime_config"].get("parameters", {})


def test_a_run_is_started_with_typed_parameters(server, invoke):
    spot = [{"key": "spot", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 3}]
    words = [
        "seed=7",
        "learning_rate=2e-5",
        "body=007",
        "gpus=1",
        f"tolerations={json.dumps(spot)}",
        'node_selector={"gpu":"l4"}',
    ]
    result = invoke(app, *words, "--run-name", "try", "--pipeline-root", "gs://bucket/runs", "--service-account", "me")
    assert result.exit_code == 0, result.output
    run = server.only("runs")
    assert parameters(run) == {
        "seed": 7,
        "learning_rate": 2e-5,
        "body": "007",
        "gpus": "1",
        "tolerations": spot,
        "node_selector": {"gpu": "l4"},
    }
    assert run["display_name"] == "try"
    assert run["runtime_config"]["pipeline_root"] == "gs://bucket/runs"
    assert run["service_account"] == "me"
    assert server.only("experiments")["display_name"] == "mtlrank"
    assert f"{server.url}/#/runs/details/{run['run_id']}" in result.stdout
    assert f"python -m pipelines.submit --follow {run['run_id']}" in result.stdout


def test_again_with_other_parameters_in_the_same_experiment(server, invoke, package):
    for seed in (1, 2):
        assert invoke(app, f"seed={seed}", "--experiment", "seeds", "--package", package).exit_code == 0
    runs = list(server.store.runs.values())
    assert [parameters(run) for run in runs] == [{"seed": 1}, {"seed": 2}]
    assert runs[0]["pipeline_spec"] == runs[1]["pipeline_spec"]
    assert {run["experiment_id"] for run in runs} == {server.only("experiments")["experiment_id"]}


def test_the_whole_pipeline_is_sent(server, invoke, package):
    invoke(app)
    sent = server.only("runs")["pipeline_spec"]
    spec, platform = yaml.safe_load_all(package.read_text())
    assert set(sent["pipeline_spec"]["components"]) == set(spec["components"])
    executors = sent["platform_spec"]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert set(executors) == set(platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"])


def test_a_run_can_answer_nothing_from_the_cache(server, invoke):
    assert invoke(app, "--no-cache").exit_code == 0
    assert "enableCache" not in json.dumps(server.only("runs")["pipeline_spec"])


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["sed=7"], 2, "Did you mean 'seed'?"),
        (["seed=x"], 2, "seed is an integer"),
        (["tasks=[1]"], 2, "tasks is a list of texts"),
        (["tasks=[]"], 2, "tasks is empty"),
        (['tasks=["trec2019","msm_bm26"]'], 2, "Did you mean 'msm_bm25'?"),
        (['overrides=["training.monitor=val/msm_ner/F1"]'], 2, "training.monitor is 'val/msm_ner/F1'"),
        (['tolerations=["spot"]'], 2, "tolerations is a list of dicts of values"),
        (['node_selector={"gpus":4}'], 2, "node_selector is a dict of texts"),
        (["registry=s3://bucket/x"], 2, "registry: 's3://bucket/x' cannot be used"),
        (["--pipeline", "mtl_ranking_nodes"], 2, "checkpoints would be at ''"),
        (["--pipeline", "mtl"], 2, "There is no pipeline 'mtl'"),
        (["--package", "nowhere.yaml"], 2, "is not a compiled pipeline"),
        (["--follow", "some-run", "seed=7"], 2, "--follow submits nothing"),
        (["--follow", ""], 2, "--follow is empty: expected the id of a run. Without --follow, a new run would start."),
        (["--follow", " "], 2, "--follow is empty"),
        (["--experiment", " "], 2, "--experiment is empty"),
        (
            ["--pipeline-root", "relative"],
            2,
            "--pipeline-root is 'relative': expected an address, as in gs://bucket/runs",
        ),
        (["--pipeline-root", ""], 2, "--pipeline-root is ''"),
        (["--pipeline-root", "gs:///runs"], 2, "--pipeline-root is 'gs:///runs'"),
        (["--pipeline-root", "gs://bucket/a b"], 2, "--pipeline-root is 'gs://bucket/a b'"),
        (
            ["--service-account", "Bad Name"],
            2,
            "--service-account is 'Bad Name': expected a Kubernetes service account",
        ),
    ],
)
def test_a_mistake_is_told_before_any_call(server, invoke, words, code, said):
    result = invoke(app, *words)
    assert result.exit_code == code
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert server.log == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"seed": "7"}, "input parameter seed requires type double or integer"),
        ({"sed": 7}, "parameter(s) provided are not required by pipeline: sed"),
        ({"tasks": "a"}, "input parameter tasks requires type list"),
    ],
)
def test_what_the_server_refuses_is_told_in_its_words(server, package, given, said):
    """Our own check comes first, so this is what it keeps from happening."""
    client = connect(server.url, None, None)
    with opened("", package) as compiled, pytest.raises(ServerError, match=r"refuses \(400\)") as caught:
        submit(client, compiled, given, "try", "mtlrank")
    assert said in str(caught.value)
    assert server.store.runs == {}


@pytest.mark.parametrize("fault", ["lose", "silent"])
def test_a_submission_that_was_cut_off_may_have_happened(fault, server, invoke, monkeypatch):
    monkeypatch.setattr("pipelines.client.TIMEOUT", 1)
    server.fail("POST .*runs", fault)
    result = invoke(app)
    assert result.exit_code == 7
    experiment = server.only("experiments")["experiment_id"]
    assert f"The run may have started: check {server.url}/#/experiments/details/{experiment}" in result.stderr
    assert len(server.store.runs) == 1  # and urllib3 has not tried again


@pytest.mark.parametrize("answer", ["{}", '{"a": 1}', "[]", "null"])
@pytest.mark.parametrize("request_of", ["POST .*experiments", "POST .*runs"])
def test_an_answer_without_an_id_is_no_run(request_of, answer, server, invoke):
    server.fail(request_of, answer, times=9)
    result = invoke(app)
    assert (result.exit_code, result.stdout.count("watch it")) == (7, 0)
    assert re.search(
        r"The server answers without the \w+_id: look|The answer is none of Kubeflow Pipelines' own", result.stderr
    )


def test_a_token_is_never_printed(server, invoke, monkeypatch):
    monkeypatch.setenv("KFP_EXISTING_TOKEN", "s3cret")
    server.token = "another"
    result = invoke(app)
    assert result.exit_code == 7
    assert "s3cret" not in result.output + invoke(app, "--help").output
    server.token = "s3cret"
    result = invoke(app)
    assert result.exit_code == 0
    assert "s3cret" not in result.output


def test_several_users_run_in_their_namespaces(server, invoke, monkeypatch):
    server.multi_user = True
    assert invoke(app).exit_code == 2
    monkeypatch.setenv("KFP_NAMESPACE", "team-a")
    assert invoke(app).exit_code == 0
    assert server.only("experiments")["namespace"] == "team-a"


def test_the_command_as_it_is_typed(server):
    """From a shell: no traceback, and the watched run's end is the exit code."""
    server.course = [("FAILED", {"train": "FAILED: out of memory"})]
    command = [sys.executable, "-m", "pipelines.submit", "seed=7", "--watch"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 8, done.stderr
    assert "train failed (out of memory)" in done.stderr
    assert "Traceback" not in done.stderr
    assert parameters(server.only("runs")) == {"seed": 7}
