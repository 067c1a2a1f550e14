"""The input model: PyTorchModel with hf_config, HfModel, formats of files."""

from __future__ import annotations

from collections.abc import Iterator

from drupe.config.dialects.rule import Note, move
from drupe.config.source import Map

NAMES = {
    "model_name": "model_path",
    "model_loading_args": "load_kwargs",
    "from_pretrained_args": "load_kwargs",
}


def hugging_face_model(config: Map) -> Iterator[Note]:
    """N4: PyTorchModel with hf_config is today's HfModel."""
    model = config.get("input_model")
    if not isinstance(model, Map):
        return
    if isinstance(model.get("hf_config"), Map):
        described = model["hf_config"]
        origin = model.drop("hf_config")
        for key in list(described):
            new = NAMES.get(key, key)
            # A local or registry model_path outweighs model_name, which then names the tokenizer.
            if key == "model_name" and new in model:
                named = described.drop(key)
                text = f"{named.path} is not needed: the tokenizer that lies with the model is used"
                yield Note("N4", named.where, text)
            else:
                yield from move("N4", described, key, model, new)
        yield Note("N4", origin.where, f"{origin.path} is read as an HfModel")
    if str(model.get("type", "")).lower() in ("pytorchmodel", "hfmodel"):
        model.put("type", "HfModel", model.origins["type"])
    elif str(model.get("type", "")).lower() == "onnxmodel":
        model.put("type", "ONNXModel", model.origins["type"])
    if isinstance(model.get("from_pretrained_args"), Map):
        model.move("from_pretrained_args", model, "load_kwargs")


def model_file_format(config: Map) -> Iterator[Note]:
    """N5: what a folder holds is seen in the folder, an MLflow model by its file MLmodel."""
    model = config.get("input_model")
    if not isinstance(model, Map) or "model_file_format" not in model:
        return
    written = model["model_file_format"]
    origin = model.drop("model_file_format")
    if written in ("PyTorch.MLflow", "PyTorch.EntireModel", None):
        yield Note("N5", origin.where, f"{origin.path} is not needed: the folder itself shows it")
    else:
        text = f"{origin.path} is {written}, a format that is not read"
        remedy = "Give a Hugging Face folder: model.save_pretrained(folder)."
        yield Note("N5", origin.where, text, "fault", remedy)
