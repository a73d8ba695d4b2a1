"""The text of a step's `--help`: its config file, whose comments explain the settings."""

from collections.abc import Iterator, Sequence
from importlib.resources import files
from itertools import dropwhile, takewhile

_PARTS = {  # of the settings that most users change, the files that are chosen by default
    "trainer": "trainer/default",
    "loop": "loop/multitask",
    "loop.optimizer": "loop/optimizer/adamw",
    "loop.schedule": "loop/schedule/linear_warmup",
    "model.body": "model/body/pretrained",
}


def usage(name: str) -> str:
    """The `--help` of the step whose config is called `name`, as a Hydra template."""
    lines = _lines(name)
    about = [line.removeprefix("#").removeprefix(" ") for line in takewhile(lambda line: line.startswith("#"), lines)]
    settings = list(takewhile(lambda line: not line.startswith("hydra:"), _after_defaults(lines[len(about) :])))
    text = "\n".join([*about, "", "Settings and their defaults (key=value, nested ones with dots; ??? must be given):"])
    text += "\n\n" + "\n".join(f"  {line}".rstrip() for line in settings).rstrip() + "\n\n"
    text = text.replace('"on":', "on:")  # quoted in the file because YAML reads `on` as true; a shell does not
    text = text.replace("$", "$$")
    if name == "train":  # study and probe take the same
        text += "Those of the chosen parts (more with --cfg job):\n\n"
        text += "".join(f"{line}\n" for key, file in _PARTS.items() for line in _part(key, file)) + "\n"
        text += "An experiment overrides some of them; experiment=embedded, if you name none:\n\n"
        text += "".join(f"  {line}\n" for line in _after_defaults(_lines("experiment/embedded"))) + "\n"
        text += "Config groups and their options (group=option):\n\n$APP_CONFIG_GROUPS\n"
    return (
        f"{text}Options: --cfg job prints the whole config with your overrides and runs nothing, --config-dir FOLDER adds\n"
        "configs of yours, -m runs a sweep over values that are separated by commas.\n"
    )


def _after_defaults(lines: Sequence[str]) -> list[str]:
    """The lines after the list of defaults, which ends with a blank line."""
    return list(dropwhile(lambda line: line != "", lines))[1:]


def _lines(name: str) -> list[str]:
    return files("mtlrank.conf").joinpath(f"{name}.yaml").read_text().splitlines()


def _part(key: str, file: str) -> Iterator[str]:
    """The settings of a part, without those that say which class it is or repeat others."""
    yield f"  {key}:  # {'='.join(file.rsplit('/', 1))}"
    for line in _lines(file):
        if not line.startswith(("#", "_", "defaults", " ", "-")) and "${" not in line and line:
            yield f"    {line}"
