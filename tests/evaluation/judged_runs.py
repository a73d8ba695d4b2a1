"""Folders of judged training runs, written by hand."""

from statistics import mean

from mtlrank.comparing.comparison import compare_pairs
from mtlrank.evaluation.judged_head import head_of
from mtlrank.evaluation.section import find_intervals
from mtlrank.storage import write_json, write_text


def write_ranking(folder, values, first_stage=None, measure="AP", **summary):
    """A judged ranking: a value for each query."""
    first_stage = first_stage or dict.fromkeys(values, 0.25)
    means = {key: {measure: mean(each.values())} for key, each in (("values", values), ("baseline", first_stage))}
    lines = [f"{q}\t{measure}\t{value}\t{first_stage[q]}\n" for q, value in values.items()]
    write_text(folder / "per_query.tsv", "query_id\tmeasure\tvalue\tfirst_stage\n" + "".join(lines))
    known = {"kind": "ranking", "primary": measure, "relevance_level": 1, "max_candidates": 10, **means}
    _write_summary(folder, known | {"baseline_name": "first stage"} | summary)


def write_labels(folder, rows, kind="regression", measures=("MSE", "Pearson"), **summary):
    """A judged regression or classification: (query_id, doc_id, item, label, prediction) each."""
    more = ["0.9"] if kind == "classification" else []
    header = ["query_id", "doc_id", "item", "label", "prediction", "confidence"][: 5 + len(more)]
    lines = ["\t".join(map(str, row)) + "\n" for row in [header, *([*row, *more] for row in rows)]]
    write_text(folder / "predictions.tsv", "".join(lines))
    known = {"kind": kind, "primary": measures[0], "relevance_level": None, "constant": rows[0][3]}
    known |= {key: dict.fromkeys(measures, 0) for key in ("values", "baseline")} | {"baseline_name": "mean label"}
    _write_summary(folder, known | summary)


def _write_summary(folder, summary):
    summary = {"name": folder.name, "split": "test", "weights": "0123", **summary}
    intervals = {"intervals": find_intervals(head_of(folder, summary))}
    write_json(folder / "metrics.json", intervals | summary)


def write_config(run, seed=1, tasks=("rank",), **settings):
    """What a run is of, which is finished."""
    write_json(run / "metrics.json", {})
    write_json(run / "run.json", {"seed": seed, "datamodule.seed": seed, "tasks": list(tasks), **settings})
    write_json(run / "model" / "config.json", {"datamodule": {"dataset": {"datasets": {key: {} for key in tasks}}}})


def write_run(run, seed=1, tasks=("rank",), gain=0.0, weights="0123", **settings):
    """A run whose ranking has 30 queries and gains `gain` on each, more or less; with `sim`, a regression beside it."""
    write_config(run, seed, tasks, **settings)
    noise = {f"q{i:02}": (i * 7919 * (seed + 1 + round(1000 * gain)) % 100 - 50) / 5000 for i in range(30)}
    values = {q: 0.3 + int(q[1:]) / 100 + gain + more for q, more in noise.items()}
    write_ranking(run / "evaluation" / "rank", values, weights=weights)
    if "sim" in tasks:
        rows = [(q, "d", 0, int(q[1:]), int(q[1:]) + 100 * more) for q, more in noise.items()]
        write_labels(run / "evaluation" / "sim", rows, weights=weights)
    return run


def compare(baseline, system, measures=None, **how):
    """Two systems compared, as a table of their own."""
    return compare_pairs([(baseline, system, measures)], **how)
