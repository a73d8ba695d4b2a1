"""Compare the runs of a study."""

from typing import List

from kfp import dsl

from components.base import step


@step
def transfer(
    results: dsl.Input[List[dsl.Artifact]],
    config: dsl.Input[dsl.Artifact],
    tables: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
):
    """Compare each head of each mixture with the same task by itself, over all seeds.

    The metrics are the differences, in the measures' own units. The tables come as CSV, LaTeX and JSON, with pictures.
    """
    import shutil
    import tempfile
    from pathlib import Path

    from mtlrank import study
    from mtlrank.storage import read_json

    settings = read_json(Path(config.path))
    with tempfile.TemporaryDirectory() as folder:
        for result in results:
            shutil.copytree(result.path, folder, dirs_exist_ok=True)
        rows = study.conclude(settings, study.plan(settings), Path(folder))
        shutil.copytree(Path(folder) / "transfer", tables.path)
    shutil.copy(Path(tables.path) / "transfer.html", page.path)
    for row in rows:
        metrics.log_metric(f"{row.system}/{row.head}/{row.measure}", row.difference)
