"""Metrics of samples, each with its standard error and the floor beside it; most need no weights."""

from .base import Metric, two_sample
from .classifier import Classifier, accuracy, c2st, fit_classifier
from .evaluate import Evaluation, evaluate
from .extractors import extractor
from .frechet import confidence, embedding, frechet, gaussian_frechet
from .mmd import energy_distance, kid, mmd
from .modes import modes
from .neighbours import copies, nearest, prdc
from .pretrained import LeNet5, load_lenet
from .table import METRICS, Comparison, MetricRow, register
from .wasserstein import exact_w2, marginal_w2, sliced_w2

__all__ = [
    "METRICS",
    "Classifier",
    "Comparison",
    "Evaluation",
    "LeNet5",
    "Metric",
    "MetricRow",
    "accuracy",
    "c2st",
    "confidence",
    "copies",
    "embedding",
    "energy_distance",
    "evaluate",
    "exact_w2",
    "extractor",
    "fit_classifier",
    "frechet",
    "gaussian_frechet",
    "kid",
    "load_lenet",
    "marginal_w2",
    "mmd",
    "modes",
    "nearest",
    "prdc",
    "register",
    "sliced_w2",
    "two_sample",
]
