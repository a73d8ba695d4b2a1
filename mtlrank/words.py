"""Text for messages."""


def counted(number: int, one: str, several: str = "") -> str:
    """A number with its noun, as in 1 run and 1,200 runs."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"
