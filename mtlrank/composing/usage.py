"""What `--help` shows for a step: its config file, whose comments explain the settings."""

from importlib.resources import files
from itertools import dropwhile, takewhile


def usage(name: str) -> str:
    """The help of the step whose config is called `name`, as a template of Hydra's."""
    lines = files("mtlrank.conf").joinpath(f"{name}.yaml").read_text().splitlines()
    about = [line.removeprefix("#").removeprefix(" ") for line in takewhile(lambda line: line.startswith("#"), lines)]
    after_defaults = list(dropwhile(lambda line: line != "", lines[len(about) :]))[1:]
    settings = list(takewhile(lambda line: not line.startswith("hydra:"), after_defaults))
    text = "\n".join([*about, "", "Settings and their defaults (key=value, nested ones with dots; ??? must be given):"])
    text += "\n\n" + "\n".join(f"  {line}".rstrip() for line in settings).rstrip() + "\n\n"
    text = text.replace('"on":', "on:")  # a word that YAML takes for true, but no shell
    text = text.replace("$", "$$")
    if name == "train":  # study and probe take the same
        text += "The experiment (experiment=embedded, if you name none) overrides some of them.\n\n"
        text += "Config groups and their options (group=option):\n\n$APP_CONFIG_GROUPS\n"
    return text + "`--cfg job` prints the whole config with your overrides and runs nothing.\n"
