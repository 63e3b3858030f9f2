"""The data-processing system: real files through the patterns, and a report of the run."""

from __future__ import annotations

from aiopatterns.processor.analysis import Analysis, Catalogue, Outlier, Package, Term
from aiopatterns.processor.corpus import Corpus, Document, Listing, Trouble
from aiopatterns.processor.fleet import Fleet
from aiopatterns.processor.output import Output
from aiopatterns.processor.progress import (
    Progress,
    Sample,
    Snapshot,
    Span,
    StageSnapshot,
    StageState,
)
from aiopatterns.processor.report import render_report
from aiopatterns.processor.runjobs import FilesDiffer
from aiopatterns.processor.stages import Facts, Volume
from aiopatterns.processor.system import DataProcessor
from aiopatterns.processor.trace import render_trace

__all__ = [
    "Analysis",
    "Catalogue",
    "Corpus",
    "DataProcessor",
    "Document",
    "Facts",
    "FilesDiffer",
    "Fleet",
    "Listing",
    "Outlier",
    "Output",
    "Package",
    "Progress",
    "Sample",
    "Snapshot",
    "Span",
    "StageSnapshot",
    "StageState",
    "Term",
    "Trouble",
    "Volume",
    "render_report",
    "render_trace",
]
