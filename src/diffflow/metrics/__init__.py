"""Two-sample metrics that need no downloaded weights, each with its standard error and the floor beside it."""

from .base import Metric
from .classifier import Classifier, accuracy, c2st, fit_classifier
from .kernel import energy_distance, mmd
from .lenet import LeNet5, load_lenet
from .neighbours import nearest, prdc
from .protocol import Evaluation, evaluate
from .transport import exact_w2, sliced_w2

__all__ = [
    "Classifier",
    "Evaluation",
    "LeNet5",
    "Metric",
    "accuracy",
    "c2st",
    "energy_distance",
    "evaluate",
    "exact_w2",
    "fit_classifier",
    "load_lenet",
    "mmd",
    "nearest",
    "prdc",
    "sliced_w2",
]
