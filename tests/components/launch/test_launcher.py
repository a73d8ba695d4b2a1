"""The launcher against a Kubernetes API server on this machine: what it makes, waits for, tells and cleans up."""

import json
import os
import threading
import time

import pytest
from kfp import dsl

from components.launch import cluster, job_state, launcher
from components.launch.component import launch
from components.launch.logs import Seen
from components.launch.trainjob import trainjob
from mtlrank.errors import ConfigError, ResourceError
from mtlrank.storage import write_bytes

from .conftest import CREATE, IMAGE, JOB, NODES, ORDER, RUN, made

METRICS = {"val/trec2019/nDCG@10": 0.5}
POLLED = f"GET .*/trainjobs/{JOB}$"


def lines(text):
    return [line for line in text.splitlines() if line.startswith("step ")]


# -- success -----------------------------------------------------------------------------------------------------------


def test_a_job_is_made_and_watched(kube, launched, capfd):
    step = launched()
    kube.wait_for(CREATE)
    pending = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no nvidia.com/gpu"}]
    kube.pod(JOB, 0, "Pending", conditions=pending)
    kube.pod(JOB, 1, "Pending")
    kube.wait_for(POLLED, 5)
    first, second = kube.pod(JOB, 0), kube.pod(JOB, 1)
    kube.write(first, "step 1", "step 2")
    kube.write(second, "step of another node")
    kube.wait_for(f"{first}/log")
    kube.write(first, "step 3")
    kube.wait_for(POLLED, kube.asked(POLLED) + 2)  # another thread than that of the log tells the states of the nodes
    kube.finish(JOB, "Complete")
    step.result()
    out, err = capfd.readouterr()
    assert lines(out) == ["step 1", "step 2", "step 3"]
    assert "node 0 Pending (Unschedulable: no nvidia.com/gpu), node 1 Pending" in err
    assert "node 0 Running, node 1 Running" in err
    assert kube.bodies == [trainjob(ORDER, NODES, RUN, IMAGE)]
    assert JOB in kube.jobs  # kept, to look at


def test_a_job_that_ends_before_anybody_looks_is_read_too(kube, launched, capfd):
    kube.store(made())
    pod = kube.pod(JOB, 0, "Succeeded")
    kube.write(pod, "step 1")
    kube.finish(JOB, "Complete")
    launched().result()
    assert lines(capfd.readouterr().out) == ["step 1"]


def test_it_belongs_to_the_workflow_of_the_run(kube, launched, monkeypatch):
    """So that it goes when the cluster forgets the run."""
    owner = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "mtl-ranking-x", "uid": "u"}
    pod = {"metadata": {"name": "me", "ownerReferences": [owner]}, "spec": {"containers": [{"name": "main"}]}}
    kube.pods["me"] = {**pod, "status": {}}
    kube.pods["me"]["metadata"]["labels"] = {}
    monkeypatch.setenv("KFP_POD_NAME", "me")
    step = launched()
    kube.wait_for(CREATE)
    kube.wait_for(POLLED)
    kube.finish(JOB, "Complete")
    step.result()
    assert kube.bodies[0]["metadata"]["ownerReferences"] == [owner]


def test_the_component_gives_uris_and_logs_metrics(kube, bucket, tmp_path):
    sets = [dsl.Dataset(name=key, uri=f"gs://bucket/{key}") for key in ("trec2019", "msm_ner")]
    kube.store = lambda job, store=kube.store: {**store(job), "status": complete(kube, job)}
    model, metrics = dsl.Model(name="model", uri="gs://bucket/root/model"), dsl.Metrics(name="metrics", uri="x")
    write_bytes("gs://bucket/root/model/metrics.json", json.dumps(METRICS).encode())
    launch.python_func(**parameters(sets), model=model, metrics=metrics)
    assert metrics.metadata == METRICS
    order = json.loads(kube.bodies[0]["spec"]["trainer"]["args"][-1])
    assert order["datasets"] == ["gs://bucket/trec2019", "gs://bucket/msm_ner"]
    assert order["output"] == "gs://bucket/root/model"
    assert order["checkpoints"] == "gs://bucket/checkpoints"
    assert order["settings"]["training.epochs"] == 2
    assert order["settings"]["trainer.accelerator"] == "gpu"  # it fails rather than train on the CPU
    assert not os.path.exists(model.path)  # kfp would upload an empty folder over it


def complete(kube, job):
    name = job["metadata"]["name"]
    kube.jobs[name]["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}
    return kube.jobs[name]["status"]


def parameters(datasets, num_nodes=2):
    return {
        "datasets": datasets,
        "tasks": ["trec2019", "msm_ner"],
        "experiment": "embedded",
        "body": "",
        "batch_size": 0,
        "learning_rate": 0.0,
        "epochs": 2,
        "sampler": "random_proportional",
        "loss": "example_mean",
        "seed": 7,
        "precision": "32-true",
        "overrides": [],
        "checkpoints": "gs://bucket/checkpoints",
        "run": RUN,
        "image": IMAGE,
        **NODES._replace(num_nodes=num_nodes)._asdict(),
        "gpus": str(NODES.gpus),  # as the pipeline has it
    }


# -- what is refused before a GPU is asked for -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "complaint"),
    [
        (ORDER._replace(output="/pipeline/model"), "Nodes of a TrainJob share no disk"),
        (ORDER._replace(overrides=["training.epoch=3"]), "Did you mean"),
        (ORDER._replace(overrides=["model._target_=os.system"]), "not allowed from a pipeline"),
        (ORDER._replace(settings={**ORDER.settings, "tasks": ["trec2020"]}), "Unknown task 'trec2020'"),
    ],
)
def test_mistakes_cost_no_job(kube, order, complaint):
    with pytest.raises(ConfigError, match=complaint):
        launcher.run(order, NODES, RUN, IMAGE)
    assert not kube.log


@pytest.mark.parametrize(
    ("status", "complaint"),
    [
        (403, "refuses to create a TrainJob: told to fail. Has pipelines/manifests been applied"),
        (404, "install Kubeflow Trainer"),
        (422, "refuses to create a TrainJob: told to fail"),
    ],
)
def test_a_refusal_says_what_to_do(kube, launched, status, complaint):
    kube.fail(CREATE, status)
    with pytest.raises(ConfigError, match=complaint):
        launched().result()


# -- failure -----------------------------------------------------------------------------------------------------------


def test_a_failure_tells_the_last_events_and_the_last_lines(kube, launched):
    step = launched()
    kube.wait_for(CREATE)
    code = {"name": "node", "state": {"terminated": {"exitCode": 1}}, "image": "", "imageID": ""}
    status = {**code, "ready": False, "restartCount": 0}
    kube.pod(JOB, 0)
    failed = kube.pod(JOB, 1, "Failed", containerStatuses=[status])
    kube.write(failed, *(f"line {number}" for number in range(30)), "mtlrank: the disk is full")
    kube.note(failed, "BackOff", "Back-off restarting failed container")
    for name in ("another-job", f"{JOB}2", f"{JOB}2-node-0"):
        kube.note(name, "Killed", "not ours")
    kube.finish(JOB, "Failed", "JobsFailed", "jobset failed due to one or more job failures")
    with pytest.raises(job_state.TrainJobError) as error:
        step.result()
    told = str(error.value)
    assert error.value.exit_code == 8
    assert "JobsFailed: jobset failed due to one or more job failures" in told
    assert f"Warning Pod {failed}: BackOff: Back-off restarting failed container" in told
    assert "not ours" not in told
    assert "Last lines of node 1" in told
    assert told.count("  line ") == 19
    assert "  mtlrank: the disk is full" in told
    assert JOB in kube.jobs


def test_lines_of_pods_that_are_gone_are_those_that_were_streamed(kube, launched):
    """A Job whose pods restart in place removes them when it fails."""
    step = launched()
    kube.wait_for(CREATE)
    pod = kube.pod(JOB, 0)
    kube.write(pod, "step 1", "mtlrank: cannot read the dataset")
    kube.wait_for(f"{pod}/log")
    time.sleep(0.3)
    kube.pods.clear()
    kube.finish(JOB, "Failed", "BackoffLimitExceeded")
    with pytest.raises(
        job_state.TrainJobError, match="Last lines of the first node:\n  step 1\n  mtlrank: cannot read"
    ):
        step.result()


def test_a_job_that_somebody_deletes_is_an_error(kube, launched):
    step = launched()
    kube.wait_for(POLLED)
    kube.jobs.clear()
    with pytest.raises(job_state.TrainJobError, match="was deleted by someone while it ran"):
        step.result()


# -- conflicts ---------------------------------------------------------------------------------------------------------


def test_a_job_of_an_earlier_attempt_is_adopted(kube, launched, capfd):
    kube.store(made())
    pod = kube.pod(JOB, 0)
    kube.write(pod, "step 1")
    step = launched()
    kube.wait_for(f"{pod}/log")
    kube.finish(JOB, "Complete")
    step.result()
    assert "adopting TrainJob" in capfd.readouterr().err
    assert kube.asked("DELETE") == 0


def test_an_answer_that_is_lost_makes_no_second_job(kube, launched, capfd):
    kube.fail(CREATE, "lose")
    step = launched()
    kube.wait_for(CREATE, 2)
    kube.wait_for(POLLED, 2)
    kube.finish(JOB, "Complete")
    step.result()
    assert "adopting TrainJob" in capfd.readouterr().err
    assert kube.count == 1


@pytest.mark.parametrize(
    "labels", [{}, {"labels": {"mtlrank/run": JOB, "mtlrank/spec": "0123"}}], ids=["same", "other"]
)
def test_a_job_that_failed_before_is_made_anew(kube, launched, labels):
    """Also with other settings: a retry may have another output."""
    kube.store(made(**labels))
    kube.finish(JOB, "Failed")
    step = launched()
    kube.wait_for("DELETE")
    kube.wait_for(CREATE, 2)
    kube.wait_for(POLLED, 3)
    kube.finish(JOB, "Complete")
    step.result()
    assert kube.jobs[JOB]["metadata"]["uid"] == "uid-2"


def test_a_job_that_is_being_deleted_is_not_adopted(kube):
    kube.store(made(deletionTimestamp="2026-11-24T12:00:00Z"))
    threading.Timer(0.3, kube.jobs.clear).start()
    launcher.begin(cluster.Cluster.connect(), made(), threading.Event())
    assert kube.jobs[JOB]["metadata"]["uid"] == "uid-2"
    assert kube.asked("DELETE") == 0


@pytest.mark.parametrize("status", ["True", "False", "Unknown"])
def test_only_a_condition_that_is_met_counts(status):
    job = {"status": {"conditions": [{"type": "Complete", "status": status}]}}
    assert bool(job_state.condition(job, "Complete")) == (status == "True")
    assert not job_state.condition(job, "Failed")


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (None, "belongs to another run: expected the label mtlrank/spec=.*, found none"),
        ({"mtlrank/run": "mtlrank-x", "mtlrank/spec": "1"}, "belongs to another run"),
        ({"mtlrank/run": JOB, "mtlrank/spec": "0123"}, "has other settings: .* found 0123"),
    ],
)
def test_a_job_that_is_not_ours_is_left_alone(kube, launched, labels, told):
    kube.store(made(labels=labels))
    if "another run" in told:
        kube.finish(JOB, "Failed")
    with pytest.raises(job_state.TrainJobError, match=told):
        launched().result()
    assert JOB in kube.jobs
    assert kube.asked("DELETE") == 0


# -- connections -------------------------------------------------------------------------------------------------------


def test_the_connection_is_lost_and_regained(kube, launched, capfd):
    """While the API server is away the job goes on, and no line is lost or shown twice."""
    step = launched()
    kube.wait_for(CREATE)
    pod = kube.pod(JOB, 0)
    kube.write(pod, "step 1", "step 2")
    kube.wait_for(f"{pod}/log")
    time.sleep(0.3)
    kube.break_streams()
    kube.write(pod, "step 3")
    kube.wait_for("GET", kube.asked("GET") + 5)
    assert step.is_alive()
    kube.mend()
    streams = kube.asked(f"{pod}/log")
    kube.wait_for(f"{pod}/log", streams + 1)
    kube.write(pod, "step 4")
    kube.finish(JOB, "Complete")
    step.result()
    out, err = capfd.readouterr()
    assert lines(out) == ["step 1", "step 2", "step 3", "step 4"]
    assert "the log of the first node is interrupted" in err
    assert "retrying" in err


@pytest.mark.parametrize("kind", [429, 500, 503, "cut"])
def test_a_server_that_is_not_itself_is_asked_again(kube, launched, kind):
    kube.fail(CREATE, kind, 2)
    kube.fail(POLLED, kind, 3)
    kube.fail("GET .*/pods", kind, 3)
    step = launched()
    kube.wait_for(POLLED, 5)
    kube.finish(JOB, "Complete")
    step.result()


def test_a_server_that_stays_away_is_an_error_and_the_job_stays(kube, launched, monkeypatch):
    step = launched()
    kube.wait_for(POLLED)
    monkeypatch.setattr(cluster, "PATIENCE", 0.3)
    kube.break_streams()
    with pytest.raises(ResourceError, match="no answer from Kubernetes for 0.3 s.* a retry of this step finds it"):
        step.result()
    assert JOB in kube.jobs


def test_a_pod_that_takes_the_place_of_another_is_followed(kube, launched, capfd):
    """Its clock may be behind."""
    step = launched()
    kube.wait_for(CREATE)
    first = kube.pod(JOB, 0)
    kube.write(first, "step 1", stamp="2026-11-24T12:00:00.000000002Z")
    kube.wait_for(f"{first}/log")
    kube.end_log(first)
    kube.pod(JOB, 0, "Failed")
    second = kube.pod(JOB, 0, suffix="bbbbb")
    kube.pods[second]["metadata"]["creationTimestamp"] = "2999-01-01T00:00:00Z"
    kube.write(second, "step 1 again", stamp="2026-11-24T11:59:59Z")
    kube.wait_for(f"{second}/log")
    kube.finish(JOB, "Complete")
    step.result()
    assert lines(capfd.readouterr().out) == ["step 1", "step 1 again"]


def test_lines_of_one_moment_are_told_apart():
    seen = Seen()
    seen.reopen("pod")
    assert [seen.is_new(stamp) for stamp in ("1Z", "2.5Z", "2.500Z")] == [True, True, True]
    seen.reopen("pod")
    assert [seen.is_new(stamp) for stamp in ("1Z", "2.5Z", "2.5Z", "2.5Z", "3Z")] == [False, False, False, True, True]
    seen.reopen("another")
    assert seen.is_new("1Z")


# -- the end of patience -----------------------------------------------------------------------------------------------


def test_a_job_past_its_deadline_is_deleted(kube, launched):
    """If the cluster does not end it by itself."""
    step = launched(seconds=0.3)
    with pytest.raises(job_state.TrainJobError, match="did not finish in .* deadline_hours"):
        step.result()
    assert kube.jobs == {}
    assert kube.bodies[0]["spec"]["activeDeadlineSeconds"] == 6 * 3600


def test_the_cluster_has_time_to_end_a_job_first(kube, bucket, monkeypatch):
    given = []
    monkeypatch.setattr(launcher, "supervise", lambda _, job, seconds: given.append((job["spec"], seconds)))
    write_bytes(f"{ORDER.output}/metrics.json", json.dumps(METRICS).encode())
    assert launcher.run(ORDER, NODES, RUN, IMAGE) == METRICS
    ((spec, seconds),) = given
    assert seconds == spec["activeDeadlineSeconds"] + launcher.LATE > spec["activeDeadlineSeconds"]
