"""Names that have changed: of fields, of training arguments, of passes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from drupe.config.dialects.rule import Note, maps, move, pass_entries
from drupe.config.source import Map
from drupe.core.accelerator import has_bitsandbytes_optimizers

PASS_NAMES = {
    "lora_r": "r",
    "lora_alpha": "alpha",
}
DATA_NAMES = {
    "source_max_len": "max_seq_len",
    "corpus_strategy": "strategy",
    "label_cols": "label_col",
}
# Names of older transformers; their values mean the same.
TRAINING_NAMES = {
    "evaluation_strategy": "eval_strategy",
    "warmup_ratio": "warmup_steps",  # below 1 the fraction of all steps
    "per_gpu_train_batch_size": "per_device_train_batch_size",
    "per_gpu_eval_batch_size": "per_device_eval_batch_size",
}
SYSTEM_NAMES = {"olive_managed_env": "managed_env"}
SEARCH_NAMES = {"search_algorithm": "sampler", "search_algorithm_config": "sampler_config"}
# Every pass that Olive had in 2024 or has today, to tell them from misspelt names.
OLIVE_PASSES = frozenset((
    "AddOliveMetadata", "AimetQuantization", "AppendPrePostProcessingOps", "AutoAWQQuantizer",
    "AutoClip", "CaptureLayerAnnotations", "CaptureSplitInfo", "ComposeOnnxModels",
    "ConvertHfToGGUF", "DoRA", "DynamicToFixedShape", "EPContextBinaryGenerator",
    "ExtractAdapters", "Gptq", "GptqModel", "GptqQuantizer", "GraphSurgeries",
    "IncDynamicQuantization", "IncQuantization", "IncStaticQuantization", "InputNCHWtoNHWC",
    "InsertBeamSearch", "KQuant", "LoHa", "LoKr", "LoRA", "LoftQ", "MatMulNBitsToQDQ",
    "MergeAdapterWeights", "MixedPrecisionOverrides", "MoEExpertsDistributor", "MobiusBuilder",
    "ModelBuilder", "NVModelOptGraphSurgery", "NVModelOptQuantization",
    "OnnxBlockWiseRtnQuantization", "OnnxBnb4Quantization", "OnnxConversion",
    "OnnxDiscrepancyCheck", "OnnxDynamicQuantization", "OnnxFloatToFloat16",
    "OnnxHqqQuantization", "OnnxIODataTypeConverter", "OnnxIOFloat16ToFloat32",
    "OnnxKQuantQuantization", "OnnxMatMul4Quantizer", "OnnxModelOptimizer",
    "OnnxOpVersionConversion", "OnnxPeepholeOptimizer", "OnnxQuantization",
    "OnnxQuantizationPreprocess", "OnnxScriptFusion", "OnnxStaticQuantization",
    "OpenVINOConversion", "OpenVINOEncapsulation", "OpenVINOIoUpdate",
    "OpenVINOOptimumConversion", "OpenVINOQuantization", "OpenVINOQuantizationWithAccuracy",
    "OpenVINOWeightCompression", "OptimumConversion", "OptimumMerging", "OrtMixedPrecision",
    "OrtPerfTuning", "OrtSessionParamsTuning", "OrtTransformersOptimization",
    "PyTorchTensorParallel", "QLoRA", "QNNContextBinaryGenerator", "QNNConversion",
    "QNNModelLibGenerator", "QNNPreprocess", "QairtEncapsulation", "QairtGenAIBuilder",
    "QairtMHA2SHA", "QairtPipelinePass", "QairtPreparation", "QuaRot",
    "QuantizationAwareTraining", "QuarkQuantization", "QuarkQuantizationVitisAI", "Rtn",
    "RyzenGenerateModelLLM", "SDLoRA", "SNPEConversion", "SNPEQuantization",
    "SNPEtoONNXConversion", "SaveTestModelConfig", "SelectiveMixedPrecision", "SliceGPT",
    "SparseGPT", "SpinQuant", "SplitModel", "StaticLLM", "TorchTRTConversion",
    "VitisAIAddMetaData", "VitisAIQuantization", "VitisGenerateModelLLM",
    "VitisGenerateModelSD",
))  # fmt: skip
# What Olive's metrics are read as (N19), where this version has none of that name.
OLIVE_METRICS = frozenset(("Accuracy", "Latency", "Throughput", "Size", "Custom"))
# Olive's passes that were renamed, by their last name.
RENAMED_PASSES = {
    "GenAIModelExporter": "ModelBuilder",
    "OnnxModelOptimizer": "OnnxPeepholeOptimizer",
    "OnnxIOFloat16ToFloat32": "OnnxIODataTypeConverter",
    "OrtPerfTuning": "OrtSessionParamsTuning",
}
OPTIMIZERS = {"adamw_hf": "adamw_torch", "paged_adamw": "paged_adamw_32bit"}
# AdamW, to the bit, in the memory that a GPU shares with its machine: without a GPU, plain AdamW.
ON_GPU_ALONE = {"paged_adamw_32bit": "auto"}


def renamed_fields(config: Map) -> Iterator[Note]:
    """N6: fields that have another name today."""
    for data in maps(config.get("data_configs")):
        yield from _rename(data.get("pre_process_data_config"), DATA_NAMES)
    for entry in pass_entries(config.get("passes")):
        yield from _rename(entry, PASS_NAMES)
        yield from _rename(entry.get("training_args"), TRAINING_NAMES)
    for system in maps(config.get("systems")):
        if system.get("type") == "PythonEnvironment":
            yield from _rename(system, SYSTEM_NAMES)
    engine = config.get("engine")
    if isinstance(engine, Map):
        yield from _rename(engine.get("search_strategy"), SEARCH_NAMES)


def _rename(fields: Any, names: dict[str, str]) -> Iterator[Note]:
    if not isinstance(fields, Map):
        return
    for old, new in names.items():
        if old in fields:
            origin = fields.origins[old]
            known = new in fields
            yield from move("N6", fields, old, fields, new)
            if not known:
                yield Note("N6", origin.where, f"{origin.path} is read as {new}")


def renamed_passes(config: Map) -> Iterator[Note]:
    """N6: passes that have another name today; a dotted path is its last part."""
    for entry in pass_entries(config.get("passes")):
        written = entry.get("type")
        if not isinstance(written, str):
            continue
        name = written.rpartition(".")[2]
        name = RENAMED_PASSES.get(name, name)
        if name != written:
            origin = entry.origins["type"]
            entry.put("type", name, origin)
            yield Note("N6", origin.where, f'{origin.path} "{written}" is read as {name}')


def training_arguments(config: Map) -> Iterator[Note]:
    """N9: training arguments that transformers 5 calls otherwise, with other values."""
    for entry in pass_entries(config.get("passes")):
        arguments = entry.get("training_args")
        if isinstance(arguments, Map):
            yield from _grouped_by_length(arguments)
            yield from _optimizer(arguments)


def _grouped_by_length(arguments: Map) -> Iterator[Note]:
    if isinstance(arguments.get("group_by_length"), bool):
        grouped = arguments["group_by_length"]
        origin = arguments.drop("group_by_length")
        strategy = "group_by_length" if grouped else "random"
        arguments.put("train_sampling_strategy", strategy, origin)
        yield Note("N9", origin.where, f"{origin.path} is read as train_sampling_strategy")


def _optimizer(arguments: Map) -> Iterator[Note]:
    if arguments.get("adafactor") is True:
        origin = arguments.drop("adafactor")
        arguments.put("optim", "adafactor", origin)
        yield Note("N9", origin.where, f'{origin.path} is read as optim "adafactor"')
    written = arguments.get("optim")
    if not isinstance(written, str):
        return
    name = OPTIMIZERS.get(written, written)
    if not has_bitsandbytes_optimizers():
        name = ON_GPU_ALONE.get(name, name)
    if name != written:
        origin = arguments.origins["optim"]
        arguments.put("optim", name, origin)
        yield Note("N9", origin.where, f'{origin.path} "{written}" is read as "{name}"')
