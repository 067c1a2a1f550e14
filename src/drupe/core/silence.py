"""What dependencies send home by themselves is off, in every process of drupe's.

ONNX Runtime sends events over HTTPS from its own threads on Linux, macOS and Windows unless the
variable is set before it is loaded (1.31.1 looked its collector up within 20 s of a session); the
others send usage statistics or ask for newer versions.
"""

from __future__ import annotations

import os

SILENT = {
    "DO_NOT_TRACK": "1",
    "DISABLE_TELEMETRY": "1",
    "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime and onnxruntime-genai: Privacy.md
    "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface_hub, and transformers and datasets by it
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "AZUREML_SDKV2_TELEMETRY_OPTOUT": "1",  # azure-ai-ml
    "AZURE_CORE_COLLECT_TELEMETRY": "0",  # the az command, by which azure-identity may log in
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_ERROR_REPORTING": "false",
}


def silence_dependencies() -> None:
    """Set the environment of this process and its children; before a heavy import."""
    os.environ.update(SILENT)
