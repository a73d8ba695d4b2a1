"""Compare the layers of bodies: the results of several probes, over seeds.

mtlrank probes base=runs/probes/base ranker=runs/probes/ranker --output runs/probes/compared
"""

if __name__ == "__main__":  # `python -m mtlrank.probes` is `mtlrank probes`
    from mtlrank.entry import start_command

    start_command("probes")

from collections.abc import Sequence
from pathlib import Path

from mtlrank.about import PROBED
from mtlrank.comparing.grouping import split_run
from mtlrank.errors import DataError
from mtlrank.probing.comparison import Found, compare_probes, group_probes, read_probe, remarks
from mtlrank.probing.comparison_tables import print_comparison, write_comparison
from mtlrank.progress import say
from mtlrank.storage import writable_folder
from mtlrank.words import counted


def run(probes: Sequence[str], output: Path | None = None) -> list[Found]:
    """Show the compression in each layer of each body; write all measures and the pictures to a folder.

    `probes` are folders of `mtlrank probe`, or folders with several of them, such as those of a sweep over seeds, each with
    or without the name of its body as in `name=FOLDER`.
    """
    groups = group_probes([(name, read_probe(folder)) for name, folder in _folders(probes)])
    folder = None if output is None else writable_folder(output)
    found = compare_probes(groups)
    for name, group in groups.items():
        say(f"{name}: {counted(len(group), 'probe')}, seeds {', '.join(str(probe.seed) for probe in group)}")
    print_comparison(found)
    for note in remarks(groups):
        say(note)
    if folder is not None:
        write_comparison(folder, found)
        print(f"results: {folder}")
    return found


def _folders(probes: Sequence[str]) -> list[tuple[str | None, Path]]:
    """The folders of probes, also below those that are named."""
    found = list[tuple[str | None, Path]]()
    for probe in probes:
        name, folder = split_run(probe)
        below = sorted(path.parent for path in folder.rglob(PROBED))
        if not below:
            raise DataError(f"{folder} holds no results of `mtlrank probe`: expected {PROBED} there or below it.")
        found += [(name, each) for each in below]
    return found
