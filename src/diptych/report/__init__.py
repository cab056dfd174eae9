"""What people look at: plots of arrays, and one self-contained HTML page.

`plots` needs matplotlib and `html` jinja2, so neither is imported from here.
"""
