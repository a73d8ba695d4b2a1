"""The results of probing: numbers, a page, pictures, and the suggested layers as overrides."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.markup import escape

from mtlrank.about import PROBED
from mtlrank.evaluation.measures import shown
from mtlrank.pages import figures, render
from mtlrank.pages.tables import as_csv, show
from mtlrank.probing.comparison import COMPRESSION, FREQUENCIES
from mtlrank.probing.task import Layers, Probed, by_compression, suggested_layer
from mtlrank.storage import write_json, write_text

_HEADER = ["task", "body", "layer", "measure", "value", "online_bits", "uniform_bits", "compression", "suggested"]


def write_results(
    output: Path,
    results: Sequence[Probed],
    heads: Sequence[str | None],
    margin: float,
    body: str,
    settings: Mapping[str, Any],
    made_from: Mapping[str, Mapping[str, str]],
) -> None:
    """Write the results into a folder; `heads` are the keys of the tasks' heads in the config, as in model.heads.msm_ner.

    A head whose layer cannot be chosen is None. `settings` are those of the config, by dotted key, that decide the results,
    and `made_from` has the hashes of the classes of the user's own, the weights and the data.
    """
    suggested = suggestions(results, margin)
    lines = overrides(results, heads, suggested)
    write_text(output / "probe.csv", _csv(results, suggested))
    tasks = [{**_plain(probed), "suggested_layer": suggested.get(probed.name)} for probed in results]
    write_json(output / PROBED, {"body": body, "settings": settings, **made_from, "margin": margin, "tasks": tasks})
    comment = (
        f"# The shallowest layer whose compression is within {margin:.0%} of the best. Paste behind `mtlrank train`.\n"
    ) + "".join(f"# {note}\n" for note in notes(results, margin))
    write_text(output / "suggested.yaml", comment + yaml.safe_dump(lines))
    pictures = _pictures(results, suggested)
    figures.write_pictures(output, [(f"layers-{title}", picture) for title, picture in pictures])
    page = render(
        "probe.html.j2",
        body=body,
        name=_name(body),
        margin=margin,
        results=results,
        suggested=suggested,
        overrides=lines,
        notes=notes(results, margin),
        pictures=pictures,
        shown=shown,
        settings=yaml.safe_dump(dict(settings), sort_keys=False),
    )
    write_text(output / "probe.html", page)


def suggestions(results: Sequence[Probed], margin: float) -> dict[str, int]:
    """The suggested layer by task name, of tasks for which any layer is better than none."""
    layers = {probed.name: suggested_layer(probed, margin) for probed in results}
    return {name: layer for name, layer in layers.items() if layer is not None}


def notes(results: Sequence[Probed], margin: float) -> list[str]:
    """Why a layer is suggested by another criterion than compression, or none is."""
    reasons = []
    for probed in (probed for probed in results if by_compression(probed, margin) is None):
        measure, layer = probed.measures[0], suggested_layer(probed, margin)
        items = f"{probed.num_train:,} items"
        if all(value is None for value in probed.found.values[measure]):
            why = f"{items} are too few for a probe of any layer to order candidates, so {measure} is undefined"
        else:
            why = f"by compression, with {items}, no layer predicts its labels better than their frequencies"
        by = "no layer is suggested" if layer is None else f"layer {layer} is suggested by {measure}"
        reasons.append(f"{probed.name}: {why}; {by}. Raise probe.max_train if the dataset has more items.")
    return reasons


def overrides(results: Sequence[Probed], heads: Sequence[str | None], suggested: Mapping[str, int]) -> list[str]:
    """The suggested layers as overrides, for heads whose layers can be chosen."""
    places = zip(results, heads, strict=True)
    return [f"{head}.pooler.layers=[{suggested[p.name]}]" for p, head in places if head and p.name in suggested]


def print_table(results: Sequence[Probed], margin: float) -> None:
    """Show compression and first measure of each layer on the terminal; a star marks what is suggested.

    Those of the body with random weights, if it was probed, follow.
    """
    header = [escape(f"{probed.name}\ncompression {shown(probed.measures[0])}") for probed in results]
    rows, random = list[list[str]](), list[list[str]]()
    suggested = [suggested_layer(probed, margin) for probed in results]
    for row, layer in enumerate(results[0].found.layers):
        cells = [_cell(probed.found, probed.measures[0], row) for probed in results]
        marked = [f"[bold green]{c} *[/]" if layer == s else f"{c}  " for c, s in zip(cells, suggested, strict=True)]
        rows.append([str(layer), *marked])
        random.append([str(layer), *(f"{_cell(p.control, p.measures[0], row)}  " for p in results if p.control)])
    none = [f"{probed.frequencies:.2f} {probed.baseline[probed.measures[0]]:9.4f}  " for probed in results]
    show(["layer", *header], [*rows, ["none", *none]], names=1, width=140)
    if results[0].control:
        show(["random weights\nlayer", *header], random, names=1, width=140)


def _name(body: str) -> str:
    """A short name of a body: the last part of its path, or the one before a folder that is called `model`."""
    path = Path(body)
    return path.parent.name or path.name if path.name == "model" else path.name


def _cell(found: Layers, measure: str, row: int) -> str:
    value = found.values[measure][row]
    return f"{found.compression[row]:.2f} {'-' if value is None else f'{value:.4f}':>9}"


def _csv(results: Sequence[Probed], suggested: Mapping[str, int]) -> str:
    """A row for each task, body, layer and measure; those of baselines have no layer."""
    rows: list[list[Any]] = [_HEADER]
    for probed in results:
        for body, layers in (("given", probed.found), ("random weights", probed.control)):
            if layers is None:
                continue
            for number, layer in enumerate(layers.layers):
                is_suggested = body == "given" and layer == suggested.get(probed.name)
                code = [f"{layers.bits[number]:.1f}", f"{probed.uniform_bits:.1f}", f"{layers.compression[number]:.4f}"]
                for measure, values in layers.values.items():
                    value = "" if (found := values[number]) is None else f"{found:.6f}"
                    rows.append([probed.name, body, layer, measure, value, *code, "yes" if is_suggested else ""])
        for measure, constant in probed.baseline.items():
            rows.append([probed.name, probed.baseline_name, "", measure, f"{constant:.6f}", "", "", "", ""])
        code = [f"{probed.uniform_bits / probed.frequencies:.1f}", f"{probed.uniform_bits:.1f}"]
        rows.append([probed.name, FREQUENCIES, "", "", "", *code, f"{probed.frequencies:.4f}", ""])
    return as_csv(rows)


def _plain(probed: Probed) -> dict[str, Any]:
    """As JSON."""
    control = None if probed.control is None else probed.control._asdict()
    return {**probed._asdict(), "found": probed.found._asdict(), "control": control}


def _pictures(results: Sequence[Probed], suggested: Mapping[str, int]) -> figures.Pictures:
    """Compression, and each measure that is the first of some tasks."""
    pictures = [("Compression", _picture(results, COMPRESSION, suggested))]
    for measure in dict.fromkeys(probed.measures[0] for probed in results):
        mine = [
            p for p in results if p.measures[0] == measure and p.found.values[measure] != [None] * len(p.found.layers)
        ]
        if mine:
            pictures.append((shown(measure), _picture(mine, measure, suggested)))
    return pictures


def _picture(results: Sequence[Probed], quantity: str, suggested: Mapping[str, int]) -> figures.Picture:
    panels = {probed.name: {"the body": _curve(probed.found, quantity)} for probed in results}
    for probed in results:
        if probed.control:
            panels[probed.name][figures.RANDOM_WEIGHTS] = _curve(probed.control, quantity)
    if quantity == COMPRESSION:
        levels, level = {probed.name: probed.frequencies for probed in results}, FREQUENCIES
    else:
        levels = {probed.name: probed.baseline[quantity] for probed in results}
        level = " or ".join(dict.fromkeys(probed.baseline_name for probed in results))
    return figures.layer_curves(panels, shown(quantity), levels, f"none ({level})", suggested)


def _curve(found: Layers, quantity: str) -> list[figures.LayerValue]:
    """A value for each layer; what is undefined is NaN, where the line has a gap."""
    values = found.compression if quantity == COMPRESSION else found.values[quantity]
    values = [math.nan if value is None else value for value in values]
    return [figures.LayerValue(layer, value) for layer, value in zip(found.layers, values, strict=True)]
