"""Tests of significance on plain arrays. A *unit* is drawn independently: a query with all its items, or a text."""

from mtlrank.evaluation.significance.paired import holm, t_test, tost
from mtlrank.evaluation.significance.resampling import confidence_interval, randomisation_test

__all__ = ["confidence_interval", "holm", "randomisation_test", "t_test", "tost"]
