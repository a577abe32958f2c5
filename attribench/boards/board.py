"""A board: one edition of a data set, one protocol, one version, in one TOML file.

    leaderboards/
      boards/<dataset>-<edition>.<protocol>.v<version>.toml
      submissions/<board>/<digest>.submission.zip     as they came
      entries/<board>/<digest>.safetensors            what verifying them gave
      truth/<board>/<study>-query.safetensors         what took training to know, kept by whoever runs the board
      site/                                           built

The version goes up whenever the studies are no longer the same: numbers of two versions never stand in one table.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pydantic
import tomli_w

from attribench import plugins
from attribench.diffusion.fingerprint import fingerprint
from attribench.editions import open_dataset
from attribench.errors import SubmissionError, UsageError
from attribench.files.fields import Text
from attribench.files.whole import whole_file
from attribench.measurement import Truth
from attribench.run.experiment import Experiment, Planned, plan
from attribench.run.places import tiny_model
from attribench.submissions.container import SUFFIX
from attribench.submissions.statement import Digest
from attribench.submissions.truths import kept_truths


class Definition(pydantic.BaseModel):
    """What a board's TOML file holds."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    title: Text
    question: Text
    """What the numbers say, in a sentence."""
    version: pydantic.PositiveInt
    studies: Digest
    """Of all plans together: another data set, preset or model is another version of the board."""
    experiment: Experiment


@dataclass(frozen=True)
class Board:
    root: Path
    definition: Definition

    @property
    def name(self) -> str:
        """As its files and pages are called."""
        return name_of(self.definition.experiment, self.definition.version)

    @property
    def experiment(self) -> Experiment:
        """What every submission has to have run."""
        return self.definition.experiment

    @property
    def submissions(self) -> list[Path]:
        """The files that were added, by digest."""
        return sorted((self.root / "submissions" / self.name).glob(f"*{SUFFIX}"))

    @property
    def truth_folder(self) -> Path:
        """Where the truths lie that the board itself keeps."""
        return self.root / "truth" / self.name

    def entry_path(self, digest: str) -> Path:
        """Where the result of verifying the submission of this digest is kept."""
        return self.root / "entries" / self.name / f"{digest[:16]}.safetensors"

    def planned(self, data_root: Path | None = None) -> Planned:
        """The board's studies. Raises SubmissionError if they are no longer those that it was made for."""
        planned = plan(self.experiment, data_root)
        if _digest(planned) != self.definition.studies:
            raise SubmissionError(
                f"the studies of {self.name} are no longer those that it was made for (data set, preset or model changed): "
                f"make version {self.definition.version + 1} with `attribench leaderboard new`"
            )
        return planned

    def kept(self, planned: Planned) -> dict[str, Truth]:
        """The truths that the board keeps, by study id."""
        return kept_truths(self.truth_folder, planned)


@dataclass(frozen=True)
class Leaderboards:
    """The folder of all boards."""

    root: Path

    @cached_property
    def boards(self) -> list[Board]:
        """By name. Raises UsageError for a definition that cannot be read."""
        found = []
        for path in sorted((self.root / "boards").glob("*.toml")):
            found.append(Board(self.root, _read(path)))
            if path.stem != found[-1].name:
                raise UsageError(f"{path} defines the board {found[-1].name}; give the file that name")
        return found

    def of(self, experiment: Experiment) -> Board | None:
        """The newest board of an experiment."""
        fitting = [board for board in self.boards if board.experiment == experiment]
        return max(fitting, key=lambda board: board.definition.version, default=None)

    def define(self, experiment: Experiment, title: str | None = None) -> Board:
        """A new board, or the next version of one whose studies have changed. Raises UsageError if it is there already."""
        planned = plan(experiment)
        same = [b for b in self.boards if name_of(b.experiment, 0) == name_of(experiment, 0)]
        newest = max((b.definition.version for b in same), default=0)
        summary = plugins.find("protocol", experiment.protocol).summary
        question = summary.partition(": ")[2] or summary  # without the protocol's name before the colon
        definition = Definition(
            title=title or f"{experiment.protocol.replace('-', ' ')} on {experiment.dataset}".capitalize(),
            question=question[:1].upper() + question[1:],
            version=newest + 1,
            studies=_digest(planned),
            experiment=experiment,
        )
        if any(b.definition.studies == definition.studies and b.experiment == experiment for b in same):
            raise UsageError(f"there is already a board {name_of(experiment, newest)} of these studies in {self.root}")
        board = Board(self.root, definition)
        with whole_file(self.root / "boards" / f"{board.name}.toml") as path:
            path.write_text(tomli_w.dumps(definition.model_dump(mode="json", exclude_none=True)))
        self.__dict__.pop("boards", None)
        return board


def name_of(experiment: Experiment, version: int) -> str:
    """customconcept101-mini.lds.v1; the preset is named where it is not the edition's own."""
    preset = "" if experiment.preset == experiment.edition else f".{experiment.preset}"
    return f"{experiment.dataset}-{experiment.edition}.{experiment.protocol}{preset}.v{version}"


def default_experiment(dataset: str, protocol: str | None, preset: str | None) -> Experiment:
    """The mini edition of a data set under a protocol as it ships."""
    opened = open_dataset(dataset, "mini")
    return Experiment(
        dataset=opened.name,
        edition="mini",
        protocol=plugins.find("protocol", protocol or opened.default_protocol).name,
        preset=preset or "mini",
        model=fingerprint(tiny_model()),
    )


def _read(path: Path) -> Definition:
    try:
        return Definition.model_validate(tomllib.loads(path.read_text()))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, pydantic.ValidationError) as error:
        raise UsageError(f"{path} is no definition of a board: {' '.join(str(error).split())[:200]}") from error


def _digest(planned: Planned) -> str:
    return hashlib.sha256(json.dumps(planned.digests, sort_keys=True).encode()).hexdigest()
