"""N14: keys that public recipes carry and that change nothing here, named one by one.

What is in no table stays where it is, and is an unknown key: an error. A value that asks for
something which drupe does otherwise is told as a warning, one that asks for nothing as a note.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from drupe.config.dialects.builder import BUILDER, WORDS
from drupe.config.dialects.known import NOTHING, Harmless, Known, Refusal
from drupe.config.dialects.rule import Note, maps, pass_entries, short
from drupe.config.dialects.trainer import TRAINING
from drupe.config.source import Map

TOP: Known = {
    "pass_flows": Refusal(NOTHING, "lists flows of passes", "Write a config for each flow."),
    "auto_optimizer_config": Refusal(
        (*NOTHING, {"opt_level": 0}, {"disable_auto_optimizer": True}),
        "asks for passes to be chosen",
        "Name the passes.",
    ),
}
ENGINE: Known = {
    "evaluate_input_model": Harmless((True,), 'engine.evaluate ("ends", "none") says it'),
    "clean_cache": Harmless(NOTHING, "run with --force to work again what is cached"),
    "clean_evaluation_cache": Harmless(NOTHING, "run with --force to measure again"),
    "plot_pareto_frontier": Harmless((True, *NOTHING), "report.html shows the front of a search"),
    "output_name": Harmless(NOTHING, "the model's folder is named by its passes and target"),
    "ort_log_severity_level": Harmless((0, 1, 2, 3, 4), "a step's log holds the runtime's words"),
    "ort_py_log_severity_level": Harmless(
        (0, 1, 2, 3, 4), "a step's log holds the runtime's words"
    ),
    "log_to_file": Harmless((True, False), "a step's words are kept in its log"),
    "no_artifacts": Harmless(NOTHING, "the output folder is always written"),
    "enable_shared_cache": Refusal(NOTHING, "asks for a shared cache", "Leave it out."),
}
PASSES: Known = {
    "disable_search": Harmless((True, *NOTHING), "a pass is searched where it has choices"),
    "clean_run_cache": Harmless(NOTHING, "run with --force to work again what is cached"),
    "output_name": Harmless(NOTHING, "each stage stays in the cache; the last one is delivered"),
    "evaluator": Harmless(NOTHING, "engine.evaluator measures every stage"),
}
LORA: Known = {
    "bias": Refusal(("none", *NOTHING), "asks for trained biases", "Leave it out."),
    "modules_to_save": Refusal(NOTHING, "asks for layers to be trained whole", "Leave it out."),
    "use_ort_trainer": Harmless(NOTHING, "transformers' Trainer is used"),
    "ortmodule_onnx_opset_version": Harmless((16,), "transformers' Trainer is used"),
    "allow_tf32": Harmless((True, False, None), "TF32 is a choice of the GPU's libraries"),
    "ephemeral_gpu_offload": Harmless(NOTHING, "it is about DoRA on a GPU"),
}
DATA: Known = {
    "post_process_data_config": Harmless(NOTHING, "a metric judges by itself"),
    "dataloader_config": Harmless(NOTHING, "training_args has the batch size"),
}
LOAD: Known = {
    "type": Refusal(
        ("huggingface_dataset", "local_dataset", *NOTHING), "asks for other data", "Leave it out."
    ),
    "trust_remote_code": Harmless((True, *NOTHING), "files of rows hold no code"),
}
PREPROCESS: Known = {
    "type": Refusal(
        ("text_generation_huggingface_pre_process", "huggingface_pre_process", *NOTHING),
        "asks for other samples",
        "Leave it out: strategy says what is made of the rows.",
    ),
    "model_name": Harmless((), "the tokenizer that lies with the model is used"),
    "task": Harmless(("text-generation", "text-generation-with-past"), "it is the model's"),
    "trust_remote_code": Harmless((), "input_model.load_kwargs.trust_remote_code says it"),
    "input_formatting_func": Refusal(NOTHING, "names code to run", "Write an input_template."),
    "output_formatting_func": Refusal(NOTHING, "names code to run", "Write an output_template."),
    "padding_side": Harmless(("right",), "samples are padded on the right"),
}
MODEL: Known = {
    "model_attributes": Harmless(NOTHING, "config.json says what the model is"),
    "io_config": Harmless(NOTHING, "the exporter knows the model's inputs"),
    "dummy_inputs_func": Harmless((None,), "the exporter knows the model's inputs"),
    "model_loader": Refusal(NOTHING, "names code to run", "Give a Hugging Face folder."),
    "model_script": Refusal(NOTHING, "names code to run", "Give a Hugging Face folder."),
    "script_dir": Refusal(NOTHING, "names code to run", "Give a Hugging Face folder."),
    "feature": Harmless((), "the exporter knows the model's inputs"),
    "model_class": Harmless(("AutoModelForCausalLM",), "config.json names the class"),
    "mlflow_transformer_model_cache_dir": Harmless((), "nothing is unpacked elsewhere"),
    "generative": Harmless((True, False), "config.json says what the model is"),
}
LOAD_ARGUMENTS: Known = {
    "torch_dtype": Harmless(("auto", None), "the checkpoint's type is kept; LoRA has its own"),
    "dtype": Harmless(("auto", None), "the checkpoint's type is kept; LoRA has its own"),
    "device_map": Harmless(("auto", "cpu", None), "the step puts the model where it works"),
    "attn_implementation": Harmless(("eager", "sdpa", None), "transformers chooses"),
    "low_cpu_mem_usage": Harmless((True, False), "weights are always mapped"),
    "use_safetensors": Harmless((True, None), "nothing else is read"),
    "use_cache": Harmless((True, False), "the step decides"),
    "max_memory": Harmless((None,), "the step puts the model where it works"),
    "extra_args": Harmless(NOTHING, "it is empty"),
    "quantization_method": Refusal(NOTHING, "asks for a quantized base", "Leave it out."),
    "quantization_config": Refusal(NOTHING, "asks for a quantized base", "Leave it out."),
}
SYSTEM: Known = {
    "is_dev": Harmless((True, False), "drupe's own code always goes along"),
    "olive_managed_env": Refusal(
        NOTHING,
        "asks for an environment to be made there",
        "Describe it in aml_docker_config (drupe init azureml writes one).",
    ),
}
OF_PASSES: dict[str, Known] = {
    **dict.fromkeys(("LoRA", "DoRA", "QLoRA", "LoftQ"), LORA),
    BUILDER: WORDS,
}


def harmless_keys(config: Map) -> Iterator[Note]:
    """N14: drop what has no effect, each told in one line; what cannot be honoured is a fault."""
    yield from _drop(config, TOP)
    yield from _drop(config.get("engine"), ENGINE)
    model = config.get("input_model")
    if isinstance(model, Map):
        yield from _drop(model, MODEL)
        yield from _drop(model.get("load_kwargs"), LOAD_ARGUMENTS)
    for system in maps(config.get("systems")):
        yield from _drop(system, SYSTEM)
    for data in maps(config.get("data_configs")):
        yield from _drop(data, DATA)
        yield from _drop(data.get("load_dataset_config"), LOAD)
        yield from _drop(data.get("pre_process_data_config"), PREPROCESS)
    for entry in pass_entries(config.get("passes")):
        own = OF_PASSES.get(str(entry.get("type")), {})
        yield from _drop(entry, {**PASSES, **own})
        if own is LORA:
            yield from _drop(entry.get("training_args"), TRAINING)


def _drop(owner: Any, table: Known) -> Iterator[Note]:
    if not isinstance(owner, Map):
        return
    for key in [key for key in owner if key in table]:
        known, value = table[key], owner[key]
        origin = owner.drop(key)
        asks_nothing = any(_same(value, each) for each in known.asks_nothing)
        if isinstance(known, Refusal):
            if asks_nothing:
                yield Note("N14", origin.where, f"{origin.path} asks for nothing, and is left out")
            else:
                text = f"{origin.path} {known.what} ({short(value)}), which is not done here"
                yield Note("N14", origin.where, text, "fault", known.remedy)
            continue
        text = f"{origin.path} has no effect: {known.why}"
        yield Note("N14", origin.where, text, "note" if asks_nothing else "warning")


def _same(value: Any, other: Any) -> bool:
    """Return whether two values are equal, 0 and False being two."""
    return bool(value == other) and isinstance(value, bool) == isinstance(other, bool)
