"""A checkpoint as MLflow keeps it: in parts."""

from __future__ import annotations

import shutil
from pathlib import Path

import yaml

CONFIGS = ("config.json", "generation_config.json")


def split(checkpoint: Path, folder: Path, flavour: str = "hftransformersv2") -> Path:
    """Write the files of a checkpoint as an MLflow model of a flavour; return its folder."""
    azureml = flavour.startswith("hf")
    data = folder / "data" if azureml else folder
    tokenizer = data / "tokenizer" if azureml else folder / "components" / "tokenizer"
    settings = (
        {"hf_pretrained_class": "AutoModelForCausalLM", "model_data": "data"}
        if azureml
        else {"model_binary": "model", "components": ["tokenizer"], "task": "text-generation"}
    )
    for part in (data / "model", tokenizer):
        part.mkdir(parents=True)
    for file in checkpoint.iterdir():
        part = tokenizer if file.name.startswith("tokenizer") else data / "model"
        if azureml and file.name in CONFIGS:
            part = data / "config"
            part.mkdir(exist_ok=True)
        shutil.copy(file, part)
    flavours = {"python_function": {"loader_module": "mlflow"}, flavour: settings}
    (folder / "MLmodel").write_text(yaml.safe_dump({"flavors": flavours}))
    return folder
