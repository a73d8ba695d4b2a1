"""Write a head of a trained model in a form that needs no mtlrank.

python -m mtlrank.export model_dir=runs/my-run/model head=trec2019 output_dir=exported/trec2019
"""

if __name__ == "__main__":  # first: help, and a slip of the pen, should not wait for torch
    from mtlrank.entry import start

    start("export")

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mtlrank.about import WEIGHTS
from mtlrank.checks import nearest
from mtlrank.config import Config
from mtlrank.errors import ConfigError
from mtlrank.exporting.card import head_card, model_card
from mtlrank.exporting.check import Score, check_scores
from mtlrank.exporting.cross_encoder import write_cross_encoder
from mtlrank.exporting.facts import without_folders
from mtlrank.exporting.onnx_graph import write_onnx
from mtlrank.exporting.stock import has_stock_type, write_stock
from mtlrank.model.saved import SOURCES
from mtlrank.progress import say
from mtlrank.registry import model_folder
from mtlrank.storage import (
    MANIFEST,
    check_state,
    file_hash,
    local_path,
    new_folder,
    read_json,
    read_manifest,
    unchanged,
    write_json,
    write_manifest,
    write_text,
)
from mtlrank.trained_head import TrainedHead, load_head, read_trained, unfit

WRITERS: dict[str, Callable[[Path, TrainedHead], Score]] = {
    "transformers": write_stock,
    "sentence-transformers": write_cross_encoder,
    "onnx": write_onnx,
}
MULTITASK = "multitask"


def run(config: Config) -> Path:
    """Export a head, or the whole model, as a folder that appears whole or not at all; returns the folder.

    The export is loaded again, and must give the scores of the head.
    """
    if not config["output_dir"]:
        raise ConfigError("output_dir is missing: say where the export goes.")
    layout, model_dir = config["format"], model_folder(config["model_dir"])
    output = local_path(config["output_dir"]).resolve()  # through links, so that data lie where the user keeps them
    if output in (model_dir.resolve(), Path.cwd()):
        raise ConfigError(f"output_dir is {output}, the folder of the model or the current one. Choose a new folder.")
    formats = [*WRITERS, MULTITASK]
    if layout is not None and layout not in formats:
        raise ConfigError(f"format is {layout!r}.{nearest(str(layout), formats)} Expected one of {', '.join(formats)}.")
    if _is_done(output, config, model_dir):
        say(f"exported before: {output}")
        return output
    _check_free(output, replace=config["force"])
    if layout == MULTITASK:
        with _new_export(output, replace=config["force"]) as part:
            _copy_model(model_dir, part, trust=config["trust_model"])
    else:
        head = load_head(model_dir, config["head"], trust=config["trust_model"], kinds="texts")
        if head.dataset.bm25_text:
            raise ConfigError(
                f"Head {head.name!r} also reads BM25 scores (bm25_in_text), for which an export has no place. Use `mtlrank "
                "rank`, or format=multitask."
            )
        scores_pairs = unfit(head.dataset) is None
        layout = layout or ("sentence-transformers" if scores_pairs and not has_stock_type(head) else "transformers")
        with _new_export(output, replace=config["force"]) as part:
            check_scores(head, WRITERS[layout](part, head))
            write_text(part / "README.md", head_card(head, layout))
            write_manifest(part, _described({"kind": "export", "head": head.name}, layout, model_dir))
            check_state(model_dir, head.state)
    say(f"exported as {layout}: {output}")
    return output


def _copy_model(model_dir: Path, part: Path, *, trust: bool) -> None:
    """Copy the model folder into `part` and add a card; mtlrank uses the copy like the original.

    Paths in its config are reduced to names, as an export is made to be published.
    """
    with unchanged(model_dir):
        read_trained(model_dir, trust=trust)
        manifest = read_manifest(model_dir)
        for name in manifest["files"]:
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(model_dir / name, part / name)
        for name in ("config.json", SOURCES):
            write_json(part / name, without_folders(read_json(part / name)), sort_keys=False)
        write_text(part / "README.md", model_card(model_dir))
        description = {key: value for key, value in manifest.items() if key != "files"}
        write_manifest(part, _described(description, MULTITASK, model_dir))


def _described(description: dict[str, object], layout: str, model_dir: Path) -> dict[str, object]:
    return {**description, "exported": layout, "weights_of": file_hash(model_dir / WEIGHTS)}


@contextmanager
def _new_export(output: Path, *, replace: bool) -> Iterator[Path]:
    """A folder to write to that becomes `output`, unless something has come there in the meantime."""
    with new_folder(output) as part:
        yield part
        _check_free(output, replace=replace)


def _is_done(output: Path, config: Config, model_dir: Path) -> bool:
    """Whether a folder holds what is to be exported already, as after a command that was stopped at its very end."""
    if config["force"] or not (output / MANIFEST).is_file():
        return False
    found = read_json(output / MANIFEST)
    head = None if config["format"] == MULTITASK else config["head"]
    wanted = {"head": head, "exported": config["format"]}
    is_same = all(value in (None, found.get(name)) for name, value in wanted.items())
    return is_same and found.get("weights_of") == file_hash(model_dir / WEIGHTS)


def _check_free(output: Path, *, replace: bool) -> None:
    """Only an earlier export is replaced, and only on request."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    manifest = read_json(output / MANIFEST) if (output / MANIFEST).is_file() else {}
    is_ours = isinstance(manifest, dict) and "exported" in manifest
    if not is_ours:
        raise ConfigError(f"{output} exists already, and is no export. Choose another output_dir.")
    if not replace:
        raise ConfigError(f"{output} holds an export. Choose another output_dir, or replace it with force=true.")
