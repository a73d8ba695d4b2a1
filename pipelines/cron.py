"""Cron expressions as people write them, for a scheduler that counts seconds too."""

import re

from mtlrank.errors import ConfigError

_FIELDS = {"minute": (0, 59), "hour": (0, 23), "day of the month": (1, 31), "month": (1, 12), "day of the week": (0, 6)}
_NAMES = {
    "month": ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"),
    "day of the week": ("sun", "mon", "tue", "wed", "thu", "fri", "sat"),
}
_ITEM = re.compile(r"(?:[*?]|(\w+)(?:-(\w+))?)(?:/(\d+))?", re.ASCII)
_LONGEST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)  # days of each month


def with_seconds(cron: str) -> str:
    """`0 3 * * *` as `0 0 3 * * *`; an expression of six fields, seconds first, stays as it is.

    Kubeflow Pipelines reads five fields as six whose last is missing: `0 3 * * *` would run at minute 3 of every hour.
    """
    fields = cron.split()
    if len(fields) not in (5, 6):
        raise ConfigError(
            f"--cron is {cron!r}, with {len(fields)} fields: expected minute, hour, day of the month, month and day of "
            "the week, such as '0 3 * * *' for every night at three."
        )
    seconds, *rest = fields if len(fields) == 6 else ["0", *fields]
    if len(fields) == 6 and not seconds.isdecimal():
        raise ConfigError(
            f"--cron is {cron!r}, which starts with {seconds!r} for the second of the minute: a run would start every few "
            "seconds. Expected one number there, or five fields without seconds."
        )
    bounds = {"second": (0, 59), **_FIELDS}
    numbers = {
        name: [number for item in field.split(",") for number in _numbers(item, name, bounds[name], cron)]
        for name, field in zip(bounds, (seconds, *rest), strict=True)
    }
    day, longest = min(numbers["day of the month"]), max(_LONGEST[month - 1] for month in numbers["month"])
    if day > longest and rest[-1] in ("*", "?"):  # else a day of the week is enough
        raise ConfigError(f"--cron is {cron!r}: none of these months has a day {day}, so no run would ever start.")
    return " ".join([seconds, *rest])


def _numbers(item: str, name: str, bounds: tuple[int, int], cron: str) -> range:
    """The numbers that an item of a field stands for."""
    low, high = bounds
    match = _ITEM.fullmatch(item)
    ends = [_number(end, name) for end in match.groups()[:2] if end] if match else [-1]
    right = all(low <= end <= high for end in ends) and ends == sorted(ends)
    if not match or not right or (match[3] and not int(match[3])):
        raise ConfigError(
            f"--cron is {cron!r}: {item!r} is not a valid {name}. Expected {low} to {high}, a range like {low}-{high}, a "
            f"list with commas, or * with a step like */2."
        )
    first, last = ends[0] if ends else low, ends[-1] if ends and (match[2] or not match[3]) else high
    return range(first, last + 1, int(match[3] or 1))


def _number(text: str, name: str) -> int:
    names = _NAMES.get(name, ())
    if text.lower() in names:
        return names.index(text.lower()) + _FIELDS[name][0]
    return int(text) if text.isdecimal() else -1
