"""Small training runs that tests disturb, and how two of them are compared."""

import os
import subprocess
import sys

import pytest
import torch

from mtlrank import train
from mtlrank.backbone import load_tokenizer
from mtlrank.composing.compose import compose_config
from mtlrank.loop.checkpoints import Checkpoints
from mtlrank.loop.milestones import Milestones
from mtlrank.loop.progress import PlainProgress
from mtlrank.model.body import MTLBody

WORDS = [
    "tasks=[trec2019,msm_ner]",
    "training.batch_size=8",
    "training.epochs=3",
    "training.max_val_queries=10",
    "training.checkpoint_steps=4",
    "model.heads.trec2019.dropout=0.1",
    "test=false",
]


LIMITS = "datamodule.train_sampler.limits={trec2019: 60, msm_ner: 60}"


def words(data_dir, output, *more):
    sampler = [] if any("train_sampler" in word for word in more) else [LIMITS]
    return [*WORDS, *sampler, f"data_dir={data_dir}", f"output_dir={output}", *more]


def settings(data_dir, output, *more):
    return compose_config(words(data_dir, output, *more), trusted=True)


def pretrained(folder):
    """Words for a body that comes with weights, which are written into a folder and loaded for use: without dropout."""
    name = "mtlrank-embedded/tiny-bert"
    MTLBody(name, pretrained=False).encoder.save_pretrained(folder)
    load_tokenizer(name).save_pretrained(folder)
    return ["model/body=pretrained", f"model.body.backbone={folder}", "model.body.attention_dropout=0.1"]


class StoppedError(Exception):
    """Stands for a kill."""


def run_until(config, step):
    """Train, and die after an optimizer step."""

    def stop(self, trainer, *args):
        if trainer.global_step == step:
            raise StoppedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PlainProgress, "on_train_batch_end", stop)
        with pytest.raises(StoppedError):
            train.run(config)


def content(output):
    """The newest state of a run, without times and Lightning's counters of what an attempt has done."""
    checkpoints = Checkpoints(output / "checkpoints")
    state = checkpoints.newest()[1]
    del state["loops"], state["callbacks"][Milestones.__name__]["seconds"]
    return state


def assert_same(first, second, where=""):
    """Equal to the bit, in whatever is nested."""
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second), where
    elif isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key in first:
            assert_same(first[key], second[key], f"{where}.{key}")
    elif isinstance(first, list | tuple):
        assert len(first) == len(second), where
        for number, pair in enumerate(zip(first, second, strict=True)):
            assert_same(*pair, f"{where}[{number}]")
    else:
        assert first == second, where


def start(*overrides, env=(), launcher=()):
    """`python -m mtlrank.train` in a process of its own."""
    command = [*(launcher or [sys.executable]), "-m", "mtlrank.train", *overrides]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "MTLRANK_TRACEBACK": "", **dict(env)}
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=variables)


def finish(*overrides, env=(), launcher=()):
    """Run to the end; (exit code, what was said)."""
    process = start(*overrides, env=env, launcher=launcher)
    said = process.communicate(timeout=240)[1]
    return process.returncode, said


def wait_for(process, text):
    """Read what a process says until a line holds `text`; the lines so far."""
    lines = []
    for line in process.stderr:
        lines.append(line)
        if text in line:
            return "".join(lines)
    raise AssertionError(f"the process ended before it said {text!r}: {''.join(lines)}")
