"""`python -m mtlrank.export`."""

from mtlrank.entry import start
from mtlrank.export import run

if __name__ == "__main__":
    start("export", run)
