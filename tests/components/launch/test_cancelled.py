"""What a step that is cancelled leaves on the cluster: no job that holds GPUs, whenever the signal comes."""

import json
import signal
import subprocess
import sys
import time

import pytest

from components.launch import cluster, launcher

from .conftest import CREATE, JOB, NODES, ORDER, RUN, made

STEP = """
import json, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
from components.launch import launcher
from components.train.order import Order
from components.launch.trainjob import Nodes
from mtlrank.guard import guarded
with guarded():
    launcher.run(Order.loads(sys.argv[1]), Nodes(**json.loads(sys.argv[2])), sys.argv[3], "image:1")
"""


@pytest.fixture
def step(kube):
    """Starts the launcher in a process of its own, as the pod of the step gets signals; it may do something before."""
    processes = []

    def start(before=""):
        arguments = [ORDER.dumps(), json.dumps(NODES._asdict()), RUN]
        program = [sys.executable, "-c", before + STEP, *arguments]
        processes.append(subprocess.Popen(program, stderr=subprocess.PIPE, text=True))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def check_cleaned_up(kube, process):
    said = process.communicate(timeout=60)[1]
    assert process.returncode != 0
    assert kube.jobs == {}, said
    assert f"deleted TrainJob {JOB}" in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_step_that_is_cancelled_deletes_its_job(kube, step, number):
    process = step()
    kube.wait_for("GET .*/pods")
    assert JOB in kube.jobs
    process.send_signal(number)
    check_cleaned_up(kube, process)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_step_that_is_cancelled_in_the_midst_of_a_request_deletes_its_job(kube, step, number):
    """Where the HTTP client holds a lock, which nobody would release after an error that a signal raises there."""
    process = step(f"""
import os, time
from queue import LifoQueue
import urllib3

class Pool(urllib3.HTTPConnectionPool):
    class QueueCls(LifoQueue):
        signals = [{number}]

        def put(self, item, *rest, **named):
            self.mutex.acquire()
            if item and self.signals:
                os.kill(os.getpid(), self.signals.pop())
                time.sleep(0.2)
            self.mutex.release()
            super().put(item, *rest, **named)

urllib3.poolmanager.pool_classes_by_scheme["http"] = Pool
""")
    check_cleaned_up(kube, process)


def test_a_job_that_is_being_created_when_the_step_is_cancelled_is_deleted(kube, step):
    kube.store = lambda job, store=kube.store: time.sleep(1) or store(job)
    process = step()
    kube.wait_for(CREATE)
    process.send_signal(signal.SIGTERM)
    check_cleaned_up(kube, process)


def test_a_step_that_is_cancelled_leaves_others_jobs_alone(kube, launched):
    job = made()
    kube.store(made(labels={"mtlrank/run": JOB, "mtlrank/spec": "0123"}))
    launcher.remove(cluster.Cluster.connect(), job)
    assert JOB in kube.jobs
