"""The self-contained report: what a release brings, how it comes about, and whether all is well.

LEADRE §5: its tables and figures for one release, on one page that needs no network.
"""

from leadre.report.content import Report
from leadre.report.page import write_report

__all__ = ["Report", "write_report"]
