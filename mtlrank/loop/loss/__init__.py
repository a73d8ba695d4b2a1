"""How the losses of a mixed batch become one number, or its tasks' gradients one gradient."""

from mtlrank.loop.loss.adaptive import DynamicWeightAverage, RandomWeights, Uncertainty
from mtlrank.loop.loss.combiner import Combiner, Learner, TaskWeights
from mtlrank.loop.loss.fixed import ExampleMean, Muppet, StaticWeights, TaskMean
from mtlrank.loop.loss.gradient import Aggregated, ByGradient, GradNorm

__all__ = [
    "Aggregated",
    "ByGradient",
    "Combiner",
    "DynamicWeightAverage",
    "ExampleMean",
    "GradNorm",
    "Learner",
    "Muppet",
    "RandomWeights",
    "StaticWeights",
    "TaskMean",
    "TaskWeights",
    "Uncertainty",
]
