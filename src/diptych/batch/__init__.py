"""A model on any number of pictures: a plan, parts that are pure functions of it, and one manifest.

`inputs` lists the pictures, `plan` and `shards` define a job, `local` and `cluster` compute its parts in processes or
on Ray, `jobs` joins them, `tables` are the jobs of the verbs, and
`results` is what comes out.
"""

from __future__ import annotations

from diptych.batch.inputs import names_in
from diptych.batch.jobs import JobOptions, Pictures, begin
from diptych.batch.results import Job
from diptych.batch.tables import features_table, predictions_table, preprocessed_table

__all__ = [
    "Job",
    "JobOptions",
    "Pictures",
    "begin",
    "features_table",
    "names_in",
    "predictions_table",
    "preprocessed_table",
]
