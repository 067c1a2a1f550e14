"""What lies at a path, told from headers and small files alone.

PATH --> run's output folder --> model --> checkpoint | adapter | ONNX folder
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from drupe.checkpoint.genai_folder import SETTINGS
from drupe.checkpoint.header import TensorSpec, read_header
from drupe.core.errors import Refused
from drupe.inspect.adapter import read_adapter
from drupe.inspect.family import described_quantization, read_family
from drupe.inspect.inspection import Inspection
from drupe.inspect.onnx_folder import inspect_onnx
from drupe.inspect.provenance import read_licence, read_provenance, run_in, run_of
from drupe.inspect.tokenizer import read_tokenizer
from drupe.inspect.weights import code_bits, stored_weights, summed
from drupe.resources.checks import check_adapter, check_no_pickles, check_shards, json_object

CONFIG, ADAPTER_CONFIG = "config.json", "adapter_config.json"
INDEX = "model.safetensors.index.json"
REMEDY = (
    "Give a Hugging Face checkpoint, a PEFT adapter, a folder of ONNX Runtime GenAI, a file of "
    "weights, or the output folder of a run."
)


def inspect(path: Path) -> Inspection:
    """Return what is told of the model at `path`: a folder, or a file of weights.

    Raises Refused for what is none, and for files that are damaged or lead out of their folder.
    """
    if path.is_file():
        return _file(path)
    if not path.is_dir():
        raise Refused(str(path), "is not there", REMEDY)
    run = run_in(path)
    if run is not None and not _is_model(path):
        if run.model is None or not run.model.is_dir():
            raise Refused(
                str(path),
                "is a run's output folder, and the model that its report names is not there",
                "Run it again: finished steps come from the cache.",
            )
        found = _folder(run.model)
    else:
        found, run = _folder(path), run_of(path)
    told = run.told if run else {}
    return replace(found, provenance={**found.provenance, **told})


def _is_model(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (SETTINGS, CONFIG, ADAPTER_CONFIG))


def _file(file: Path) -> Inspection:
    if file.suffix == ".onnx":
        return inspect_onnx(file.parent, file)
    if file.suffix == ".safetensors":
        return Inspection(str(file), "hf", summed(stored_weights(_specs([file]), {}), [file]))
    raise Refused(str(file), "is a file, and neither .safetensors nor .onnx", REMEDY)


def _folder(folder: Path) -> Inspection:
    if (folder / SETTINGS).is_file():
        return inspect_onnx(folder)
    if (folder / ADAPTER_CONFIG).is_file() and not (folder / CONFIG).is_file():
        return _adapter(folder)
    check_no_pickles(folder)
    if any(folder.glob("*.safetensors")) or (folder / CONFIG).is_file():
        return _checkpoint(folder)
    graphs = sorted(folder.glob("*.onnx"))
    if len(graphs) == 1:
        return inspect_onnx(folder, graphs[0])
    what = "holds no model that drupe knows"
    if graphs:
        what = f"holds {len(graphs)} ONNX graphs and no {SETTINGS} that says which is the model"
    raise Refused(str(folder), what, REMEDY)


def _checkpoint(folder: Path) -> Inspection:
    config = json_object(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    check_shards(folder)
    files = _weight_files(folder)
    if not files:
        what = f"has a {CONFIG} and no *.safetensors: its weights are not there"
        raise Refused(str(folder), what, "Give the folder that holds the weights, too.")
    told = described_quantization(config)
    quantization = _quantization(told)
    specs = _specs(files)
    family, sizes = read_family(config, quantization, specs) if config else (None, None)
    return Inspection(
        path=str(folder),
        kind="hf",
        weights=summed(stored_weights(specs, told), files),
        family=family,
        sizes=sizes,
        quantization=quantization,
        tokenizer=read_tokenizer(folder),
        licence=read_licence(folder),
        provenance=read_provenance(folder, config),
    )


def _weight_files(folder: Path) -> list[Path]:
    """Return the files that are the model: some folders hold it a second time, consolidated."""
    index = folder / INDEX
    if index.is_file():
        names = sorted(set(map(str, json_object(index)["weight_map"].values())))
        for name in names:
            if Path(name).name != name:
                what = f'names the file "{name}", which does not lie beside it'
                raise Refused(str(index), what, "Give the folder as its publisher has it.")
        return [folder / name for name in names]
    whole = folder / "model.safetensors"
    return [whole] if whole.is_file() else sorted(folder.glob("*.safetensors"))


def _specs(files: list[Path]) -> list[TensorSpec]:
    return [tensor.spec for file in files for tensor in read_header(file)]


def _quantization(told: Mapping[str, Any]) -> str | None:
    if not told:
        return None
    method, bits = str(told.get("quant_method") or "unnamed method"), code_bits(told)
    return method if bits is None else f"{method}, {bits} bits"


def _adapter(folder: Path) -> Inspection:
    check_no_pickles(folder)
    check_adapter(folder)
    config = json_object(folder / ADAPTER_CONFIG)
    files = [folder / "adapter_model.safetensors"]
    adapter = read_adapter(folder, config)
    family = None
    if adapter.base is not None and (Path(adapter.base) / CONFIG).is_file():
        family, _ = read_family(json_object(Path(adapter.base) / CONFIG), None)
    return Inspection(
        path=str(folder),
        kind="hf-adapter",
        weights=summed(stored_weights(_specs(files), {}), files),
        family=family,
        adapter=adapter,
        tokenizer=read_tokenizer(folder),
        licence=read_licence(folder),
        provenance=read_provenance(folder, config),
    )
