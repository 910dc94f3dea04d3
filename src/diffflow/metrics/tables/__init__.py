"""Metrics of tables of numbers, words, levels, dates and gaps, in the words of the field of synthetic tables."""

from .boosting import Utility, c2st_auc, trained_on, utility
from .cells import UnlikelyCell, cell_lines, unlikely_cells
from .comparison import (
    TableComparison,
    boosted_c2st,
    closest_metrics,
    rare_metrics,
    shape_metrics,
    trend_metrics,
    tstr,
)
from .page import content, lines
from .pictures import association_picture, column_picture
from .privacy import closest_share, duplicates, rare
from .similarity import column_shapes, gap_scores, pair_trends

__all__ = [
    "TableComparison",
    "UnlikelyCell",
    "Utility",
    "association_picture",
    "boosted_c2st",
    "c2st_auc",
    "cell_lines",
    "closest_metrics",
    "closest_share",
    "column_picture",
    "column_shapes",
    "content",
    "duplicates",
    "gap_scores",
    "lines",
    "pair_trends",
    "rare",
    "rare_metrics",
    "shape_metrics",
    "trained_on",
    "trend_metrics",
    "tstr",
    "unlikely_cells",
    "utility",
]
