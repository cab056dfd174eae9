"""Plots of arrays, and self-contained HTML pages.

`plots` needs matplotlib and `html` jinja2, so neither is imported from here.
"""
