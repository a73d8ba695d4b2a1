"""Report on all heads."""

from typing import List

from kfp import dsl

from components.base import step


@step
def report(
    results: dsl.Input[List[dsl.Artifact]],
    model: dsl.Input[dsl.Model],
    page: dsl.Output[dsl.HTML],
    summary: dsl.Output[dsl.Markdown],
    metrics: dsl.Output[dsl.Metrics],
):
    """Write one page about all heads: verdict, table, learning curves, gains per query."""
    import shutil
    import tempfile
    from pathlib import Path

    from mtlrank.errors import DataError
    from mtlrank.evaluation.judged_head import head_folders
    from mtlrank.evaluation.report import print_table, write_report

    folders = head_folders([Path(result.path) for result in results])
    if not folders:
        raise DataError("No dataset has a test split, so no head was judged: give one a `test`.")
    with tempfile.TemporaryDirectory() as folder:
        values = write_report(Path(folder), Path(model.path), folders)
        shutil.copy(Path(folder) / "report.html", page.path)
        shutil.copy(Path(folder) / "report.md", summary.path)
    for key, value in values.items():
        metrics.log_metric(key, value)
    print_table(folders)
