"""Two-sample metrics, each with its standard error and the floor beside it; most need no weights."""

from .base import Metric
from .classifier import Classifier, accuracy, c2st, fit_classifier
from .extractors import extractor
from .frechet import confidence, embedding, frechet, gaussian_frechet
from .kernel import energy_distance, kid, mmd
from .lenet import LeNet5, load_lenet
from .modes import modes
from .neighbours import copies, nearest, prdc
from .protocol import Evaluation, evaluate
from .transport import exact_w2, marginal_w2, sliced_w2

__all__ = [
    "Classifier",
    "Evaluation",
    "LeNet5",
    "Metric",
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
    "sliced_w2",
]
