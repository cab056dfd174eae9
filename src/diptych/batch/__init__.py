"""A model on any number of pictures: a plan, parts that are pure functions of it, and one manifest.

`inputs` lists the pictures, `plan` and `shards` define a job, `local` and `cluster` compute its parts in processes or
on Ray, `jobs` joins them, and `results` is what comes out.
"""

from __future__ import annotations

from diptych.batch.inputs import names_in
from diptych.batch.jobs import JobOptions, predict_many
from diptych.batch.results import Job

__all__ = ["Job", "JobOptions", "names_in", "predict_many"]
