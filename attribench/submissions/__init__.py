"""Submissions: the results of a run in one file, and the verifier that believes none of its numbers.

    run folder ──► pack ──► container (one file) ──► verify: parse within bounds ─► plan again ─► recompute ─► compare

A submission holds scores with their ids, the truth that they were held against, and what was run where. Its numbers are
there to be compared: what is shown anywhere comes from recomputing them.
"""
