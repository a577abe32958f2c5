"""Steps, the artifact store, and running the one into the other. Knows nothing of attribution."""

from attribench.engine.listener import Listener
from attribench.engine.measure import Cost, measure
from attribench.engine.plan import DryRunRow, Estimate, Plan, dry_run, make_plan
from attribench.engine.run import execute
from attribench.engine.steps import Ref, Step, StepContext
from attribench.engine.store import ArtifactStore, DiskFull
from attribench.engine.work import Outcome

__all__ = [
    "ArtifactStore", "Cost", "DiskFull", "DryRunRow", "Estimate", "Listener", "Outcome", "Plan", "Ref", "Step",
    "StepContext", "dry_run", "execute", "make_plan", "measure",
]  # fmt: skip
