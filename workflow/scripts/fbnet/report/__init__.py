"""The report: one page, and its pictures.

Stands on evaluation and all below; only scripts stand above.
"""
