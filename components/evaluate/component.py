"""Judge one head."""

from typing import Dict, List

from kfp import dsl

from components.base import step


@step
def evaluate(
    datasets: dsl.Input[List[dsl.Dataset]],
    model: dsl.Input[dsl.Model],
    task: str,
    result: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    confusion: dsl.Output[dsl.ClassificationMetrics],
) -> Dict[str, float]:
    """Judge one head on its test split: a TREC run, per-query values, metrics, a page, a confusion matrix of classes.

    A dataset without a test split is left out, as by `mtlrank train`: its result holds no judged head.
    """
    import shutil
    from pathlib import Path

    from mtlrank import evaluate
    from mtlrank.composing.compose import pipeline_config
    from mtlrank.evaluation.judged_head import confusion_matrix, read_head
    from mtlrank.prepare import folders_by_key
    from mtlrank.storage import MANIFEST, read_json, write_text

    folders = folders_by_key([dataset.path for dataset in datasets])
    splits = read_json(folders[task] / MANIFEST)["splits"]
    if not any(splits[name]["samples"] for name in splits if name.partition("@")[0] == "test"):
        note = f"{task} has no test split and is not judged."
        print(note)
        write_text(Path(page.path), f"<p>{note}</p>\n")
        write_text(Path(result.path) / "not_judged.txt", f"{note}\n")  # a bucket keeps no empty folder
        return {}
    settings = {"model_dir": f"{model.path}/model", "tasks": [task], "output_dir": result.path}
    config = pipeline_config(settings, [], name="evaluate")
    values = evaluate.run(config, folders)
    first, *_ = sorted(Path(result.path).glob("*/index.html"))  # of several test sets, the main one
    shutil.copy(first, page.path)
    head = read_head(first.parent)
    if head.kind == "classification":
        confusion.log_confusion_matrix(*confusion_matrix(head))
    for key, value in values.items():
        metrics.log_metric(key, value)
    return values
