"""Pages: one self-contained HTML file, made of a few kinds of blocks.

``write_report`` makes a page of sections; ``report`` makes the sections of trained runs. The page
asks nothing of the network, works from ``file://``, in light and dark, on a phone and on paper.
"""

from coterie.show.report.blocks import (
    Block,
    Command,
    Curves,
    Grid,
    Matrix,
    Section,
    Settings,
    Table,
    Text,
    Verdict,
    Viewer,
)
from coterie.show.report.of_runs import report
from coterie.show.report.page import write_report

__all__ = [
    "Block",
    "Command",
    "Curves",
    "Grid",
    "Matrix",
    "Section",
    "Settings",
    "Table",
    "Text",
    "Verdict",
    "Viewer",
    "report",
    "write_report",
]
