"""`python -m mtlrank` is `mtlrank`."""

from mtlrank.cli import app

app()
