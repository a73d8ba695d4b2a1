"""Tests of significance on plain arrays. A *unit* is what is drawn independently: a query, or a sequence with its items."""

from mtlrank.evaluation.significance.paired import holm, t_test, tost
from mtlrank.evaluation.significance.resampling import bootstrap_interval, randomisation_test

__all__ = ["bootstrap_interval", "holm", "randomisation_test", "t_test", "tost"]
