"""A collection that can be read as text."""

FILES = {
    "docs": ["d1\tthe silent harbour", "d2\tharbour lights", "d3\ta garden", "d4\tgarden and harbour", "d5\tnothing"],
    "queries": ["q1\tsilent harbour", "q2\tgarden"],
    "qrels": ["q1 0 d1 2", "q1 0 d2 1", "q2 0 d3 3"],
    "run": ["q1 Q0 d2 1 3 x", "q1 Q0 d1 2 2 x", "q1 Q0 d5 3 1 x", "q2 Q0 d4 1 2 x", "q2 Q0 d3 2 1 x"],
}


def write(path, lines):
    """Write lines; returns the path as text."""
    with open(path, "w", newline="") as file:
        file.write("".join(f"{line}\n" for line in lines))
    return str(path)
