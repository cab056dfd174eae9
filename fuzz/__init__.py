"""Fuzzing of every reader: `python -m fuzz --help`.

`targets.py` lists the readers, `seeds.py` makes the good files, `mutating.py` and `shapes.py` damage them, and
`running.py` reads what came of it and counts. `corpus/` keeps the inputs that once made a reader fail.
"""
