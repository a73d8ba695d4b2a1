"""Heads: a pooler and a projection for one dataset."""

from mtlrank.model.head.cross_encoder import CrossEncoderHead
from mtlrank.model.head.head import MLP, Linear, MTLHead, ScaledMean
from mtlrank.model.head.pooler import Pooler

__all__ = ["MLP", "CrossEncoderHead", "Linear", "MTLHead", "Pooler", "ScaledMean"]
