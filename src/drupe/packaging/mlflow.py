"""An MLflow model's folder around a delivered model, written without MLflow.

    MLmodel            flavour python_function: code/drupe_model.py loads data/model
    conda.yaml, python_env.yaml, requirements.txt
    code/drupe_model.py
    data/model/...

`mlflow.pyfunc.load_model(FOLDER).predict(["PROMPT", ...])` gives a list of answers (tried with
MLflow 3.17).
"""

from __future__ import annotations

import sys
from typing import Any

import yaml

from drupe.packaging.archive import Content
from drupe.packaging.companions import program
from drupe.packaging.requirements import python_version

LOADER = "drupe_model"
DATA = "data/model"
PROGRAMS = {"onnx-genai": "mlflow_genai.py", "hf": "mlflow_transformers.py"}
# The first with python_env.yaml, and a schema of the signature as it is written here.
MLFLOW = "mlflow>=2.9"


def mlflow_files(kind: str, digest: str, requirements: list[str]) -> dict[str, Content]:
    """Return {name: content} of all but the model itself, which belongs below DATA.

    The model's identity is its content digest, so that the same model gives the same bytes.
    """
    needed = [MLFLOW, *requirements]
    model = {
        "flavors": {
            "python_function": {
                "code": "code",
                "data": DATA,
                "env": {"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
                "loader_module": LOADER,
                "python_version": sys.version.split()[0],
            }
        },
        "model_uuid": digest[:32],
        "signature": {
            "inputs": '[{"type": "string", "required": true}]',
            "outputs": '[{"type": "string", "required": true}]',
            "params": '[{"name": "max_new_tokens", "type": "long", "default": 256, "shape": null}]',
        },
    }
    conda = {
        "name": "mlflow-env",
        "channels": ["conda-forge"],
        "dependencies": [f"python={python_version()}", "pip", {"pip": needed}],
    }
    environment = {
        "python": sys.version.split()[0],
        "build_dependencies": ["pip"],
        "dependencies": ["-r requirements.txt"],
    }
    return {
        "MLmodel": _yaml(model),
        "conda.yaml": _yaml(conda),
        "python_env.yaml": _yaml(environment),
        "requirements.txt": "".join(f"{line}\n" for line in needed).encode(),
        f"code/{LOADER}.py": program(PROGRAMS[kind]),
    }


def _yaml(value: dict[str, Any]) -> bytes:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True).encode()
