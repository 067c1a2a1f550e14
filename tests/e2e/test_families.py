"""Other families than the example's Phi-3, from LoRA to int4 ONNX by the command line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.e2e.conftest import Job
from tests.greedy import greedy
from tests.make_models import FAMILIES, make
from tests.make_tokenizers import PHRASES

NEW_TOKENS = 24
# Of the others an fp32 export is compared in tests/torch/test_export.py, without the command line.
WITH_MOST_TO_LOSE = ("qwen2-tied", "qwen3-tied")


@dataclass
class Tuned:
    """A family's job, run once to int4."""

    job: Job

    @property
    def merged(self) -> Path:
        """The checkpoint of the second pass, by a run that ends there."""
        return self.model("merged")

    def model(self, output: str) -> Path:
        """Return where a run delivered its model."""
        place = str(self.job.report(output)["model"])
        return self.job.folder / output / place


def config() -> dict[str, Any]:
    """Return what is the same for every family."""
    return {
        "input_model": {"type": "HfModel", "model_path": "model"},
        "data_configs": [
            {
                "name": "phrases",
                "type": "HuggingfaceContainer",
                "load_dataset_config": {"data_name": "json", "data_files": "phrases.json"},
                "pre_process_data_config": {
                    "text_template": "### Text: {phrase}\n### The tone is:\n{tone}",
                    "strategy": "line-by-line",
                    "max_seq_len": 64,
                },
            }
        ],
        "passes": {
            "lora": {
                "type": "LoRA",
                "r": 4,
                "alpha": 8,
                "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "down_proj"],
                "train_data_config": "phrases",
                "torch_dtype": "float32",
                "training_args": {
                    "max_steps": 10,
                    "per_device_train_batch_size": 8,
                    "learning_rate": 0.02,
                    "logging_steps": 2,
                },
            },
            "merge": {"type": "MergeAdapterWeights"},
            "builder": {"type": "ModelBuilder", "precision": "int4"},
        },
        "engine": {"evaluate": "none", "cache_dir": "cache", "output_dir": "int4"},
    }


@pytest.fixture(scope="module", params=FAMILIES)
def tuned(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    folder = tmp_path_factory.mktemp(request.param)
    make(request.param, folder / "model")
    rows = PHRASES.read_text(encoding="utf-8").splitlines()[:40]
    (folder / "phrases.json").write_text("\n".join(rows))
    (folder / "config.json").write_text(json.dumps(config()))
    job = Job(folder, folder / "config.json")
    job.run()
    to_merged = config()
    del to_merged["passes"]["builder"]
    to_merged["engine"]["output_dir"] = "merged"
    (folder / "merged.json").write_text(json.dumps(to_merged))
    Job(folder, folder / "merged.json").run()
    return Tuned(job)


def test_int4_is_proven_and_answers(tuned: Tuned) -> None:
    stages = tuned.job.report("int4")["stages"]
    assert [stage["kind"] for stage in stages] == ["hf", "hf-adapter", "hf", "onnx-genai"]
    _, lora, merged, exported = stages
    losses = [loss for _, loss, *_ in lora["facts"]["losses"]]
    assert losses[-1] < losses[0]
    assert merged["within"] == "builder", "nobody asks for the merged checkpoint"
    assert merged["proof"]["passed"] is True
    assert exported["proof"]["passed"] is True
    assert len(greedy(tuned.model("int4"), [5, 6, 7], NEW_TOKENS)) == NEW_TOKENS


def test_an_export_of_the_merged_checkpoint_has_the_same_bytes(tuned: Tuned) -> None:
    done = tuned.job.drupe("export", "merged", "--precision", "int4", "-o", "in-two-steps")
    assert done.returncode == 0, done.stderr
    one, other = (tuned.model(name) / "model.onnx.data" for name in ("int4", "in-two-steps"))
    assert one.read_bytes() == other.read_bytes()


def test_the_checkpoint_keeps_its_ties_and_biases(tuned: Tuned) -> None:
    before = json.loads((tuned.job.folder / "model" / "config.json").read_text())
    assert json.loads((tuned.merged / "config.json").read_text()) == before
    names = [set(weights(folder)) for folder in (tuned.job.folder / "model", tuned.merged)]
    assert names[0] == names[1]


@pytest.mark.parametrize("tuned", WITH_MOST_TO_LOSE, indirect=True)
def test_fp32_continues_as_torch_does(tuned: Tuned) -> None:
    """The adapter comes from the cache: it is merged again, while another precision is written."""
    tuned.job.run("--set", "passes.builder.precision=fp32", "-o", "fp32")
    exported = tuned.job.report("fp32")["stages"][-1]
    assert exported["proof"]["passed"] is True
    assert exported["proof"]["value"] < 1e-5, "measured 5e-7"
    network = AutoModelForCausalLM.from_pretrained(tuned.merged, dtype=torch.float32)
    prompt = [10, 200, 300, 44]
    theirs = network.generate(
        torch.tensor([prompt]), max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=-1
    )[0, len(prompt) :]
    ours = greedy(tuned.model("fp32"), prompt, NEW_TOKENS)
    assert ours == theirs.tolist()
    assert len(set(ours)) > 2  # nothing that a model of zeros would say


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a checkpoint of one file."""
    return load_file(folder / "model.safetensors")
