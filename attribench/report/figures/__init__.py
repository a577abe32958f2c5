"""Pictures of results, each drawn from a record or from plain values."""
