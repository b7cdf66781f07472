"""A report of one run as a single HTML file that needs no network."""

from taichu.report.report import write_report

__all__ = ["write_report"]
