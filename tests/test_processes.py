import subprocess
import sys
import time

import psutil

POOL = """
import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from mtlrank.processes import end_with_parent

if __name__ == "__main__":
    with ProcessPoolExecutor(1, get_context("spawn"), end_with_parent) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        time.sleep(60)
"""


STARTER = """
import os
import subprocess
import sys
import time

from mtlrank import processes

processes._GRACE = 0
processes.end_with_starter()
if len(sys.argv) == 1:
    subprocess.Popen([sys.executable, __file__, "child"], env={**os.environ, "LOCAL_RANK": "1"})
else:
    print(os.getpid(), flush=True)
time.sleep(60)
"""


def assert_ends_with_its_parent(script, path):
    """`script` starts another process and prints its number."""
    path.write_text(script)
    with subprocess.Popen([sys.executable, path], stdout=subprocess.PIPE, text=True) as parent:
        process = psutil.Process(int(parent.stdout.readline()))
        assert process.is_running()
        parent.kill()
    until = time.monotonic() + 30
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE and time.monotonic() < until:
        time.sleep(0.05)
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_a_process_of_a_training_does_not_outlive_the_one_that_started_it(tmp_path):
    assert_ends_with_its_parent(STARTER, tmp_path / "starter.py")


def test_workers_do_not_outlive_a_killed_process(tmp_path):
    assert_ends_with_its_parent(POOL, tmp_path / "pool.py")
