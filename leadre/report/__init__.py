"""The self-contained report: index quality, training curves, quality beside baselines, one user's walk.

It shows LEADRE's Tables 1-5 kind of figures for one release, on one page that needs no network.
"""

from leadre.report.page import Report, write_report

__all__ = ["Report", "write_report"]
