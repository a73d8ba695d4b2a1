"""`python -m mtlrank.export`."""

from mtlrank.entry import start

if __name__ == "__main__":
    start("export")
