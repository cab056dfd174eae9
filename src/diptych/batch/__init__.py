"""A model on any number of pictures: a plan, parts that are pure functions of it, and one manifest.

`inputs` lists the pictures, `plan` and `shards` define a job, `rows` computes a part, `local` and `cluster` do so in
processes or on Ray, `jobs` joins them, `tables` are the jobs of the verbs, and `results` is what comes out. Nothing
is imported here, so that the processes of a job load what they need and start soon.
"""
