"""A method under examination: what its checks share is done once."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from attribench import plugins
from attribench.attribution.method_run import check as check_declarations
from attribench.conformance.apart import Report, run_apart
from attribench.conformance.trial import Trial
from attribench.conformance.verdict import Failed, NotJudged
from attribench.conformance.world import Stage, World
from attribench.engine.work import one_torch_thread
from attribench.errors import AccessError, Unavailable
from attribench.interface import AttributionMethod, Scores

OTHER_RANDOMNESS = 987


class Subject:
    """A method in the world. Raises Unavailable if the method cannot run here."""

    def __init__(self, method: AttributionMethod, world: World, name: str | None = None) -> None:
        self.asked = method
        self.method = method.resolve(world.plan.edition)
        """With every "auto" made concrete, as a run would have it."""
        self.name = name
        """What its entry point calls it, if that is known."""
        self.world = world
        reason = self.method.skip(world.plan.edition)
        if reason is not None:
            raise Unavailable(f"{method.name} cannot run here: {reason}")
        self._folder = Path(tempfile.mkdtemp(prefix="attribench-conformance-"))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        one_torch_thread()

    # ----------------------------------------------------------------------------------- its trials

    @cached_property
    def stage(self) -> Stage:
        """The world made ready for it."""
        check_declarations(self.method)
        return self.world.stage(self.method)

    def trial(self, method: AttributionMethod | None = None, **options: Any) -> Trial:
        """One in a fresh folder, with the `options` of Trial; of another form of the method, if one is given."""
        return Trial(self.stage, method or self.method, Path(tempfile.mkdtemp(dir=self._folder)), **options)

    def fitted(self, method: AttributionMethod | None = None, **options: Any) -> Trial:
        """The same, fitted."""
        trial = self.trial(method, **options)
        trial.fit()
        return trial

    def values(self, trial: Trial, cases: Sequence | None = None) -> np.ndarray:
        """[candidates, n_query, n_train] of a trial, for all queries that the model made or for some cases."""
        return np.stack([scores.values for scores in trial.score(self.stage.queries if cases is None else cases)])

    @cached_property
    def _straight(self) -> tuple[Trial, list[Scores]] | Exception:
        try:
            trial = self.fitted()
            return trial, trial.score(self.stage.queries)
        except Exception as error:  # a stranger's method raises what it likes
            return error

    @property
    def fault(self) -> Exception | None:
        """Why it has no scores at all, if it has none."""
        return self._straight if isinstance(self._straight, Exception) else None

    @property
    def straight(self) -> Trial:
        """Its first trial. Raises NotJudged if that ended without scores."""
        self.require_scores()
        return self._straight[0]

    @property
    def scores(self) -> list[Scores]:
        """What that trial gave for the queries that the model made."""
        self.require_scores()
        return self._straight[1]

    def require_scores(self) -> None:
        """Raises NotJudged for a method that has none."""
        if self.fault is not None:
            raise NotJudged(f"it has no scores: see {'needs' if isinstance(self.fault, AccessError) else 'shape'}")

    @cached_property
    def expected(self) -> np.ndarray:
        """The same as one array [candidates, n_query, n_train]."""
        return np.stack([scores.values for scores in self.scores])

    @cached_property
    def elsewhere(self) -> np.ndarray:
        """The same of a second fit in a fresh folder, where global random numbers begin elsewhere."""
        return self.values(self.fitted(randomness=OTHER_RANDOMNESS))

    @cached_property
    def repeats(self) -> bool:
        """Whether a second fit in a fresh folder gives the same scores, bit for bit."""
        return np.array_equal(self.elsewhere, self.expected) or np.array_equal(self.values(self.fitted()), self.expected)

    def require_repeats(self) -> None:
        """Raises NotJudged for a method whose scores cannot be compared with those of another trial."""
        if not self.repeats:
            raise NotJudged("its scores differ from trial to trial: see determinism")

    @cached_property
    def apart(self) -> Report:
        """A further trial in a process of its own, measured, and watched for what it writes."""
        report = run_apart(self.trial(), self.stage.queries)
        if report is None:
            raise Failed("its process died; look for a fault in native code, or for too little memory")
        if report.error is not None:
            raise Failed(f"in a process of its own: {report.error}")
        return report


def subject(method: str | AttributionMethod, world: World | None = None) -> Subject:
    """A method, by name or as an instance, in the world (of the user's own store by default).

    By name it takes the counts that it is `checked_with`; an instance stays as it is.
    """
    if isinstance(method, str):
        plugin = plugins.find("method", method)
        cls = plugin.load()
        return Subject(plugins.configure(cls, {**cls.checked_with}), world or World.open(), plugin.name)
    return Subject(method, world or World.open())
