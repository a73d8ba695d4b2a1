"""The text of a step's `--help`: its config file, whose comments explain the settings."""

from importlib.resources import files
from itertools import dropwhile, takewhile


def usage(name: str) -> str:
    """The `--help` of the step whose config is called `name`, as a Hydra template."""
    lines = files("mtlrank.conf").joinpath(f"{name}.yaml").read_text().splitlines()
    about = [line.removeprefix("#").removeprefix(" ") for line in takewhile(lambda line: line.startswith("#"), lines)]
    after_defaults = list(dropwhile(lambda line: line != "", lines[len(about) :]))[1:]
    settings = list(takewhile(lambda line: not line.startswith("hydra:"), after_defaults))
    text = "\n".join([*about, "", "Settings and their defaults (key=value, nested ones with dots; ??? must be given):"])
    text += "\n\n" + "\n".join(f"  {line}".rstrip() for line in settings).rstrip() + "\n\n"
    text = text.replace('"on":', "on:")  # quoted in the file because YAML reads `on` as true; a shell does not
    text = text.replace("$", "$$")
    if name == "train":  # study and probe take the same
        text += "The experiment (experiment=embedded, if you name none) overrides some of them.\n\n"
        text += "Config groups and their options (group=option):\n\n$APP_CONFIG_GROUPS\n"
    return text + "`--cfg job` prints the whole config with your overrides and runs nothing.\n"
