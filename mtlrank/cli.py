"""The `mtlrank` command: one word a step, then Hydra's overrides."""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from mtlrank import __version__

_PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Train one transformer body with one head per dataset. Steps take Hydra overrides: "
    "`mtlrank train experiment=trec2019 training.batch_size=64`; `mtlrank train --cfg job` prints the config.",
)


@app.command(context_settings=_PASS_ON)
def prepare(
    context: typer.Context,
    shard: Annotated[str | None, typer.Option(help="Prepare only this share of each dataset, as in 3/8.")] = None,
) -> None:
    """Read, check and tokenise datasets into folders."""
    _start("prepare", context, [f"prepare.shard={shard}"] if shard else [])


@app.command(context_settings=_PASS_ON)
def train(context: typer.Context) -> None:
    """Prepare what is missing, train, judge every head, report."""
    _start("train", context)


@app.command(context_settings=_PASS_ON)
def evaluate(context: typer.Context) -> None:
    """Judge the heads of a trained model."""
    _start("evaluate", context)


@app.command(context_settings=_PASS_ON)
def probe(context: typer.Context) -> None:
    """Find out at which layers of a frozen body each task can be read."""
    _start("probe", context)


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)


def _start(step: str, context: typer.Context, more: Sequence[str] = ()) -> None:
    """Hand the rest of the command line to Hydra."""
    from importlib import import_module  # the steps load torch: --help should not wait for it
    from importlib.util import find_spec

    from mtlrank.entry import start

    sys.argv = [f"mtlrank {step}", *context.args, *more]
    # Lightning starts further processes as it believes this one was started: as `python -m mtlrank.train`.
    sys.modules["__main__"].__spec__ = find_spec(f"mtlrank.{step}")
    start(step if step in ("evaluate", "probe") else "train", import_module(f"mtlrank.{step}").run)
