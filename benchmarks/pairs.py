"""Query-passage pairs whose lengths vary like MS MARCO's, and the measurement of systems that train or score with them."""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from benchmarks.memory import peak
from mtlrank.batch import Record
from mtlrank.datamodule.collection import Collection
from mtlrank.datamodule.dataset import PreparedDataset, Shard
from mtlrank.datamodule.preprocessor import Preprocessor
from mtlrank.datamodule.reading import Reading
from mtlrank.task import Relevance

MAX_LENGTH = 256  # tokens
Pair = tuple[str, str, int]  # query, passage, label


def pairs(number: int, seed: int = 0) -> list[Pair]:
    """Pairs of about 6 and 56 words, log-normal as in MS MARCO, half of them relevant."""
    words = [word for _, text in Collection("mtlrank-embedded/train").docs for word in text.split()]
    draw = random.Random(seed)

    def text(mean: float, spread: float) -> str:
        length = max(2, round(draw.lognormvariate(0, spread) * mean))
        return " ".join(draw.choice(words) for _ in range(length))

    return [(text(5.5, 0.4), text(51.0, 0.42), draw.randrange(2)) for _ in range(number)]


class Pairs(PreparedDataset):
    """Pairs as a dataset."""

    def __init__(self, name: str, rows: Sequence[Pair], tokenizer: str) -> None:
        super().__init__(name, Relevance(["AP"]), Preprocessor(tokenizer, max_length=MAX_LENGTH))
        self.rows = rows

    def records(self, split: str) -> Iterable[Record]:
        if split == "train":
            for i, (query, passage, label) in enumerate(self.rows):
                yield Record(f"q{i}", f"d{i}", query, passage, label)

    def prepared_in(self, folder: Path) -> "Pairs":
        """Prepare the dataset in a folder and open it."""
        self.prepare_shard(folder / "shard", Shard(), Reading())
        self.merge(folder / "whole", [folder / "shard"])
        self.open(folder / "whole")
        return self


class Measured(NamedTuple):
    """The speed and memory of one system in one process."""

    pairs_per_second: float  # of CPU time of one thread, or of wall time on a GPU
    memory: int  # MiB at the peak, of the process or on the GPU


class Clock:
    """CPU time of the process, or wall time after the GPU has finished its work."""

    def __init__(self, device: str) -> None:
        self.device = device

    def __call__(self) -> float:
        if self.device == "cpu":
            return time.process_time()
        import torch

        torch.cuda.synchronize()
        return time.perf_counter()

    def memory(self) -> int:
        """MiB at the peak so far."""
        if self.device == "cpu":
            return peak() >> 10
        import torch

        return torch.cuda.max_memory_allocated() >> 20


def parser(description: str, systems: Sequence[str]) -> argparse.ArgumentParser:
    """The options that measurements share."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    body = made.add_mutually_exclusive_group(required=True)
    body.add_argument("--body", help="a BERT or a decoder: a Hugging Face name or folder")
    body.add_argument(
        "--random",
        nargs="?",
        const="bert",
        choices=["bert", "deberta-v3", "qwen3"],
        help="random weights, which need no download: a BERT-base (default), or another of the size of MiniLM",
    )
    made.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    made.add_argument("--batch-size", type=int, default=32)
    made.add_argument("--repetitions", type=int, default=3)
    made.add_argument("--peak", type=float, default=790e12, help="operations a second of a large product on the GPU")
    made.add_argument("--system", choices=systems, help="measure only this one, in this process")
    made.add_argument("--in-turn", action="store_true", help=argparse.SUPPRESS)  # wait for a line of input
    return made


def take_turn(options: argparse.Namespace) -> None:
    """Wait until the other systems have finished; call it when all is prepared."""
    if options.in_turn:
        print("ready", flush=True)
        if not sys.stdin.readline():
            raise SystemExit(1)  # the parent process is gone


@contextmanager
def body_of(options: argparse.Namespace) -> Iterator[str]:
    """The folder or name of the body to measure."""
    if not options.random:
        yield options.body
        return
    from transformers import AutoModel, BertConfig, DebertaV2Config, Qwen3Config

    from mtlrank.backbone import load_tokenizer

    size = {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1024, "num_attention_heads": 12}
    of_v3 = {"relative_attention": True, "position_biased_input": False, "pos_att_type": "p2c|c2p"}
    of_v3 |= {"position_buckets": 256, "share_att_key": True, "norm_rel_ebd": "layer_norm"}
    deberta = DebertaV2Config(vocab_size=30_522, **{**size, "intermediate_size": 1536}, **of_v3)
    qwen3 = Qwen3Config(vocab_size=30_522, head_dim=32, num_key_value_heads=4, pad_token_id=0, **size)
    config = {"bert": BertConfig(), "deberta-v3": deberta, "qwen3": qwen3}[options.random]
    with tempfile.TemporaryDirectory() as folder:
        AutoModel.from_config(config).save_pretrained(folder)
        load_tokenizer("mtlrank-embedded/tiny-bert").save_pretrained(folder)
        yield folder


def words(options: argparse.Namespace, **replaced: Any) -> list[str]:
    """Options for the process of one system."""
    settings = {**vars(options), **replaced}
    settings.pop("random", None)  # it became a body
    known = {key: value for key, value in settings.items() if type(value) in (str, int, float) and key != "system"}
    return [f"--{key.replace('_', '-')}={value}" for key, value in known.items()]


def send(measured: Measured) -> None:
    """Hand a measurement to the process that asked for it."""
    print(f"measured {json.dumps(measured)}", flush=True)


class _Run:
    """A process that prepares one system, and measures it when `measure` is called."""

    def __init__(self, system: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.system = system
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (as long as the process)
        self.process = subprocess.Popen(
            [*command, "--system", system, "--in-turn"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env=environment,
        )

    def __enter__(self) -> "_Run":
        return self

    def __exit__(self, *_: object) -> None:
        """Kill the process."""
        self.process.kill()
        self.process.communicate()
        self.errors.close()

    def await_ready(self) -> None:
        """Wait until the process has prepared its data."""
        assert self.process.stdout
        if not any(line == "ready\n" for line in self.process.stdout):
            self._fail()

    def measure(self) -> Measured:
        """Let the process measure and end."""
        output, _ = self.process.communicate("\n")
        lines = [line for line in output.splitlines() if line.startswith("measured ")]
        if self.process.returncode or not lines:
            self._fail()
        return Measured(*json.loads(lines[-1].removeprefix("measured ")))

    def _fail(self) -> NoReturn:
        self.process.wait()
        self.errors.seek(0)
        raise SystemExit(f"{self.system} failed:\n{self.errors.read()[-3000:]}")


def compare(
    module: str, systems: Sequence[str], repetitions: int, arguments: Sequence[str], on_gpu: bool = False
) -> dict[str, Measured]:
    """Medians over repetitions. Systems run in turns, each in its own process, with one thread if CPU time is measured.

    On a GPU all processes prepare their data at the same time, and measure in turns when all are ready.
    """
    found: dict[str, list[Measured]] = {system: [] for system in systems}
    fixed = {"HF_HUB_OFFLINE": "1", "WANDB_DISABLED": "1", "CUDA_VISIBLE_DEVICES": "0"}
    if not on_gpu:
        fixed |= dict.fromkeys(("OMP_NUM_THREADS", "RAYON_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        fixed["TOKENIZERS_PARALLELISM"] = "false"
    command = [sys.executable, "-m", module, *arguments]
    for repetition in range(repetitions):
        for group in [systems] if on_gpu else [[system] for system in systems]:
            with ExitStack() as stack:
                started = [stack.enter_context(_Run(system, command, {**os.environ, **fixed})) for system in group]
                for run in started:
                    run.await_ready()
                for run in started:
                    measured = run.measure()
                    found[run.system].append(measured)
                    speed = f"{measured.pairs_per_second:.2f}"
                    print(f"  {repetition + 1}/{repetitions} {run.system}: {speed}", file=sys.stderr)
    return {system: _median(several) for system, several in found.items()}


def _median(several: Sequence[Measured]) -> Measured:
    columns: list[Any] = [statistics.median(values) for values in zip(*several, strict=True)]
    return Measured(*columns)


def table(title: str, found: dict[str, Measured], against: str) -> None:
    """Print measurements, and their ratio to one system."""
    print(f"\n{title}")
    for system, measured in found.items():
        ratio = measured.pairs_per_second / found[against].pairs_per_second
        print(
            f"{system:>26}: {measured.pairs_per_second:>10,.2f} pairs/s {ratio:>6.2f} x {against} {measured.memory:>8,} MiB"
        )


def flops_per_pair(body: str, lengths: Sequence[int]) -> float:
    """Floating-point operations of a forward pass, a pair: 2 P L + 4 n h L^2, P the weights of the layers' matrices."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(body)
    hidden, layers = config.hidden_size, config.num_hidden_layers
    weights = layers * (4 * hidden**2 + 2 * hidden * config.intermediate_size)
    return float(statistics.mean(2 * weights * n + 4 * layers * hidden * n**2 for n in lengths))
