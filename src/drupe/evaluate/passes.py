"""Given models: passes that go on with a model that was made elsewhere.

They put it behind the input model, so that it is measured beside that on the same rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from drupe.core.errors import Refused
from drupe.core.files import files_below, link_if_large
from drupe.core.job import Job
from drupe.core.model import KINDS, Model, missing_files
from drupe.core.operation import Pass
from drupe.core.target import Target


class Given(Pass):
    """What the passes below share: the folder of the model."""

    delivers: ClassVar[bool] = False
    takes: ClassVar[tuple[str, ...]] = ("hf", "hf-adapter", "onnx-genai")

    model_path: Path
    """The folder of the model that is measured."""

    def refusal(self, kind: str, target: Target) -> Refused | None:
        """Return why the folder is no such model, or None."""
        missing = missing_files(self.gives, self.model_path)
        if missing:
            what = f"{self.model_path} is no {KINDS[self.gives].meaning}: it lacks "
            return Refused(type(self).__name__, what + ", ".join(missing), "Mend the path.")
        return super().refusal(kind, target)

    def run(self, model: Model, out: Path, job: Job) -> None:
        """Link the folder's files into `out`; small ones are copied."""
        for file in files_below(self.model_path):
            link_if_large(file, out / file.relative_to(self.model_path))


class GivenCheckpoint(Given):
    """Go on with a checkpoint that was made elsewhere."""

    gives = "hf"


class GivenAdapter(Given):
    """Go on with an adapter of the input model that was made elsewhere."""

    takes, gives = ("hf",), "hf-adapter"


class GivenExport(Given):
    """Go on with an ONNX model that was made elsewhere."""

    gives = "onnx-genai"
