"""Foreign code runs where the config asks for it and transformers lacks the architecture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from drupe.checkpoint.load import load_causal_lm, runs_remote_code, tell_about_code
from drupe.core.errors import DrupeError
from drupe.core.job import Job
from drupe.core.model import Model

CODE = """
import torch
from transformers import PretrainedConfig, PreTrainedModel


class ForeignConfig(PretrainedConfig):
    model_type = "foreign"


class ForeignForCausalLM(PreTrainedModel):
    config_class = ForeignConfig

    def __init__(self, config):
        super().__init__(config)
        self.head = torch.nn.Linear(4, 4, bias=False)
        self.post_init()
"""


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """Return a checkpoint of an architecture that only its own code knows."""
    folder = tmp_path / "foreign"
    folder.mkdir()
    names = {"AutoConfig": "ForeignConfig", "AutoModelForCausalLM": "ForeignForCausalLM"}
    config = {
        "model_type": "foreign",
        "architectures": ["ForeignForCausalLM"],
        "auto_map": {auto: f"foreign_code.{name}" for auto, name in names.items()},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "foreign_code.py").write_text(CODE)
    save_file({"head.weight": torch.eye(4)}, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_foreign_code_is_refused_unless_it_is_asked_for(foreign: Path) -> None:
    with pytest.raises(
        DrupeError, match=r"architecture \(foreign\) that transformers lacks"
    ) as told:
        load_causal_lm(Model("hf", foreign, ""))
    assert '"trust_remote_code": true' in told.value.remedy


def test_foreign_code_runs_where_it_is_asked_for(foreign: Path) -> None:
    network = load_causal_lm(Model("hf", foreign, "", remote_code=True))
    assert type(network).__name__ == "ForeignForCausalLM"
    assert torch.equal(network.head.weight, torch.eye(4))


def test_never_where_transformers_has_the_architecture(tiny_phi3: Path, tmp_path: Path) -> None:
    """As the page's Phi-3: its config.json names code, and the config of the run trusts it."""
    folder = tmp_path / "phi3"
    folder.mkdir()
    for file in tiny_phi3.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "trap.Trap"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "trap.py").write_text("raise SystemExit('foreign code was run')")
    model = Model("hf", folder, "", remote_code=True)
    assert not runs_remote_code(model)
    assert type(load_causal_lm(model)).__name__ == "Phi3ForCausalLM"
    told: list[str] = []
    tell_about_code(model, Job(tmp_path, send=lambda event: told.append(event["text"])))
    assert told == ["trust_remote_code changes nothing: transformers has this architecture itself"]
