"""The `mtlrank` command: one word for each step, then Hydra's overrides or the step's own options."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand

from mtlrank import __version__

T = TypeVar("T")
_PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}

_NOT_PROMOTED = 9  # an exit code of its own: 1 is that of a crash

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},  # of its commands, too
    help="Train one transformer body with one head per dataset. Commands take Hydra overrides: "
    "`mtlrank train experiment=trec2019 training.batch_size=64`; `mtlrank train --cfg job` prints the config.",
)


class _EachOnce(TyperCommand):
    """A command that refuses a repeated option, of which only the last value would be used."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        _, _, given = self.make_parser(ctx).parse_args(list(args))
        for option in given:
            if given.count(option) > 1 and not getattr(option, "multiple", False):
                ctx.fail(f"{'/'.join([*option.opts, *option.secondary_opts])} is given more than once. Give it once.")
        return super().parse_args(ctx, args)


@app.command(context_settings=_PASS_ON)
def prepare(
    context: typer.Context,
    shard: Annotated[str | None, typer.Option(help="Prepare only this shard of each dataset, as in 3/8.")] = None,
) -> None:
    """Read, check and tokenise datasets into folders."""
    from mtlrank.composing.compose import quoted

    _start("prepare", context, [] if shard is None else [f"prepare.shard={quoted(shard)}"])


def _pass_on(step: str, text: str) -> None:
    """Add the command of a step that takes nothing but Hydra's words."""

    @app.command(step, help=text, context_settings=_PASS_ON)
    def command(context: typer.Context) -> None:
        _start(step, context)


_pass_on("train", "Prepare what is missing, train, judge every head, report.")
_pass_on("evaluate", "Judge the heads of a trained model.")
_pass_on("study", "Train mixtures of tasks and single tasks with several seeds; show what multi-task training changed.")
_pass_on("rank", "Score pairs, or re-rank a run, with a head of a trained model.")
_pass_on("predict", "Predict with a head of any kind: classes, numbers and scores of texts, pairs of texts and spans.")
_pass_on("export", "Write a head as a stock Hugging Face model.")


@app.command()
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN", help="Folders of runs, or TREC run files of other systems; name=RUN names the system."
        ),
    ],
    baselines: Annotated[
        list[str] | None,
        typer.Option(
            "--baseline",
            help="A system's name, one of its folders, or 'first stage'; default: the first system. May be repeated.",
        ),
    ] = None,
    margin: Annotated[float, typer.Option(help="A difference that does not matter, in a measure's own unit.")] = 0.01,
    measures: Annotated[
        list[str] | None, typer.Option("--measure", help="Compare only this measure; may be repeated.")
    ] = None,
    first_stage: Annotated[bool, typer.Option(help="Also compare rankings with their first stage.")] = True,
    output: Annotated[Path | None, typer.Option(help="Write CSV, LaTeX, JSON and pictures to this folder.")] = None,
    resamples: Annotated[int, typer.Option(help="Resamples of the randomisation test and the bootstrap.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Seed of the resamples.")] = 0,
) -> None:
    """Compare trained systems on the same test sets, with confidence intervals and significance tests.

    Runs that differ only in their seed are one system, and so are runs with the same name:
    `mtlrank compare single=runs/a single=runs/b all=runs/c all=runs/d`.
    """
    from mtlrank import compare as step

    _guarded(lambda: step.run(runs, baselines, margin, measures, output, resamples, seed, first_stage))


@app.command("runs")
def list_runs(
    runs: Annotated[list[str], typer.Argument(metavar="RUN_DIR", help="Folders of runs, as for compare.")],
    measures: Annotated[
        list[str] | None, typer.Option("--measure", help="As in val/trec2019/nDCG@10; may be repeated.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Write the table to this CSV file.")] = None,
    curve: Annotated[
        str | None,
        typer.Option(
            help="Draw the measures over this setting, as in loop.optimizer.lr, as .svg and .pdf beside the table."
        ),
    ] = None,
) -> None:
    """List runs, such as those of a sweep, with differing settings and measures, best first."""
    from mtlrank import runs as step

    _guarded(lambda: step.run(runs, measures, output, curve))


_pass_on("probe", "Probe the layers of a frozen body: which of them encodes each task best?")


@app.command("probes")
def compare_probes(
    probes: Annotated[
        list[str],
        typer.Argument(metavar="PROBE", help="Folders of probes, or that hold some; name=FOLDER names the body."),
    ],
    output: Annotated[Path | None, typer.Option(help="Write CSV and pictures to this folder.")] = None,
) -> None:
    """Compare the layers of several bodies: compression and measures, over seeds.

    Differences are those to the first body: `mtlrank probes base=runs/probes/base ranker=runs/probes/ranker`.
    """
    from mtlrank import probes as step

    _guarded(lambda: step.run(probes, output))


@app.command()
def promote(
    run: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="The folder of a finished run.")],
    registry: Annotated[str, typer.Option(help="Folder of the registry, local or gs://.")],
    measure: Annotated[
        list[str] | None,
        typer.Option(
            help="A measure that decides, as in trec2019/nDCG@10; default: the first of the first task of the model in use."
        ),
    ] = None,
    margin: Annotated[
        float, typer.Option(help="The new model may be worse by this much, in the measure's own unit.")
    ] = 0.02,
    force: Annotated[str, typer.Option(help="Promote without a comparison, for this reason.")] = "",
    evaluation: Annotated[
        list[Path] | None,
        typer.Option(
            help="A folder in which heads were judged, as a pipeline's step leaves it; default: the run's own."
        ),
    ] = None,
    source: Annotated[
        str, typer.Option(help="Where others find the run, as in gs://bucket/root/run; default: its folder.")
    ] = "",
) -> None:
    """Promote a model unless it may be worse than the model in use, or is worse than its baseline.

    After a rollback, none is promoted without --force. Exit code 9: it was not promoted.
    """
    from mtlrank import promote as step
    from mtlrank.registry import Registry

    decision = _guarded(
        lambda: step.of_run(run, Registry(registry), measure or (), margin, force, evaluation or (), source)
    )
    sys.exit(0 if decision.promoted else _NOT_PROMOTED)


@app.command()
def rollback(
    registry: Annotated[str, typer.Option(help="Folder of the registry, local or gs://.")],
    to: Annotated[
        str | None, typer.Option(help="The model to roll back to; default: the one that the current model replaced.")
    ] = None,
    note: Annotated[str, typer.Option(help="The reason, for the history.")] = "",
) -> None:
    """Roll back to an earlier model."""
    from mtlrank.registry import Registry
    from mtlrank.registry.history import held_by

    place = _guarded(lambda: Registry(registry))
    before = _guarded(place.history)
    change = _guarded(lambda: place.roll_back(to, note))
    print(f"{change.model} is in use now, in place of {change.replaced}")
    if held_by([*before, change]):  # not read again: an error would look as if nothing had been rolled back
        print("No model is promoted by a comparison until one is with `mtlrank promote ... --force REASON`.")


@app.command()
def models(
    registry: Annotated[str, typer.Option(help="Folder of the registry, local or gs://.")],
    prune: Annotated[
        int | None,
        typer.Option(
            metavar="KEEP",
            help="Instead, list the models that can be removed: all but the one in use, the last KEEP before it, those of "
            "the last day and those that a rollback rejected.",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove the models that --prune lists.")] = False,
) -> None:
    """List the promotions and rollbacks of a registry, or remove models that are not needed any more."""
    from mtlrank.errors import ConfigError
    from mtlrank.registry import Registry
    from mtlrank.registry.history import held_by
    from mtlrank.registry.prune import prune as prune_models

    def list_or_prune() -> None:
        if prune is not None:
            return prune_models(Registry(registry), prune, really=yes)
        if yes:
            raise ConfigError("--yes is for --prune: name how many models to keep, as in --prune 5 --yes.")
        changes = Registry(registry).history()
        for change in changes:
            source = f"  (from {change.source})" if change.source else ""
            print(f"{change.when}  {change.model}  {change.how}  {change.note}{source}")
        if held_by(changes):
            print("held: no model is promoted by a comparison until one is with `mtlrank promote ... --force REASON`")
        if not changes:
            print(f"{registry} has no model in use")
            return None
        model = changes[-1].model
        is_there = Registry(registry).exists(model)
        print(f"in use: {Registry(registry).folder(model)}{'' if is_there else ' (missing: somebody has removed it)'}")
        return None

    _guarded(list_or_prune)


@app.command()
def doctor() -> None:
    """Check what this machine has and lacks. Exit code 6: it lacks something that every run needs."""
    from mtlrank import doctor as step

    _guarded(step.run)


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)


for command in app.registered_commands:
    command.cls = _EachOnce


def _guarded(work: Callable[[], T]) -> T:
    """Run `work`; a user's mistake ends the process with one line and an exit code."""
    from mtlrank.guard import guarded

    with guarded():
        return work()


def _start(step: str, context: typer.Context, more: Sequence[str] = ()) -> None:
    """Hand the rest of the command line to Hydra."""
    from importlib.util import find_spec  # here, so that `mtlrank --help` does not load Hydra

    from mtlrank.entry import start, start_variants

    sys.argv = [f"mtlrank {step}", *context.args, *more]
    # Lightning starts further processes by the name of the main module: `python -m mtlrank.train`.
    sys.modules["__main__"].__spec__ = find_spec(f"mtlrank.{step}")
    if step == "study":
        start_variants(step)
    start(step, config="train" if step == "prepare" else step)


if __name__ == "__main__":
    app()
