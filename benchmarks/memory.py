"""How much memory a benchmark has taken."""

from pathlib import Path


def peak() -> int:
    """The most memory that this process has had, in KiB. (getrusage would count that of what started it, too.)"""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])
