"""Leaderboards: definitions and verified submissions in `leaderboards/`, and the pages and tables that are made from them.

    definition (TOML) ──┐
    submission ──► verify ──► entry (recomputed) ──► ranking over all entries ──► pages, Markdown, CSV, LaTeX

No number of a page was typed by anybody: qualities come from recomputing scores, ranks from comparing them here. Costs are
what submitters state, and are called so.
"""
