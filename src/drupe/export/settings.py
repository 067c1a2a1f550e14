"""genai_config.json: what ONNX Runtime GenAI must know of a model besides its graph.  Light.

https://onnxruntime.ai/docs/genai/reference/config.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drupe.export.decoder import Decoder

# Session options with which weights stay as they lie in the file; there are no fast kernels then.
NOT_PREPACKED = {"session.disable_prepacking": "1"}
GRAPH_FILE = "model.onnx"
PROVIDER_OPTIONS: dict[str, list[dict[str, Any]]] = {
    "cpu": [],
    "cuda": [{"cuda": {"enable_cuda_graph": "0"}}],
    "dml": [{"dml": {}}],
    "webgpu": [{"webgpu": {}}],
}
# What generation_config.json may say and the search knows, with what it is where nobody says.
SEARCH = {
    "diversity_penalty": 0.0,
    "do_sample": False,
    "early_stopping": True,
    "length_penalty": 1.0,
    "min_length": 0,
    "no_repeat_ngram_size": 0,
    "num_beams": 1,
    "num_return_sequences": 1,
    "repetition_penalty": 1.0,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
}


def genai_settings(
    decoder: Decoder,
    config: Mapping[str, Any],
    generation: Mapping[str, Any],
    *,
    provider: str,
    threads: int | None,
    inputs: list[str],
    outputs: list[str],
    pad_token: int | None,
) -> dict[str, Any]:
    """Return the content of genai_config.json.

    config, generation: what config.json and generation_config.json say. provider: its short name.
    threads: of a step of generation; None leaves it to the runtime. inputs, outputs: the graph's
    own. pad_token: the tokenizer's, where the model's files name none.
    """
    options: dict[str, Any] = {
        "log_id": "onnxruntime-genai",
        "provider_options": PROVIDER_OPTIONS[provider],
    }
    if threads is not None:
        options["intra_op_num_threads"] = threads
    named_inputs = {name: name for name in inputs if "." not in name}
    named_outputs = {name: name for name in outputs if "." not in name}
    found: dict[str, Any] = {
        "context_length": decoder.context,
        "decoder": {
            "session_options": options,
            "filename": GRAPH_FILE,
            "head_size": decoder.head_size,
            "hidden_size": decoder.hidden,
            "num_attention_heads": decoder.heads,
            "num_hidden_layers": len(decoder.layers),
            "num_key_value_heads": decoder.key_value_heads,
            "inputs": {
                **named_inputs,
                "past_key_names": "past_key_values.%d.key",
                "past_value_names": "past_key_values.%d.value",
            },
            "outputs": {
                **named_outputs,
                "present_key_names": "present.%d.key",
                "present_value_names": "present.%d.value",
            },
        },
        "type": decoder.type,
        "vocab_size": decoder.vocabulary,
    }
    end = _first(generation.get("eos_token_id"), config.get("eos_token_id"))
    found["eos_token_id"] = end
    found["bos_token_id"] = _first(generation.get("bos_token_id"), config.get("bos_token_id"), end)
    padding = _first(config.get("pad_token_id"), generation.get("pad_token_id"), pad_token, end)
    found["pad_token_id"] = padding[0] if isinstance(padding, list) else padding
    if isinstance(found["bos_token_id"], list):
        found["bos_token_id"] = found["bos_token_id"][0]
    search = {key: _first(generation.get(key), usual) for key, usual in SEARCH.items()}
    return {
        "model": found,
        "search": {
            **search,
            "max_length": decoder.context,
            "past_present_share_buffer": True,
        },
    }


def _first(*values: Any) -> Any:
    """Return the first that is not None; None where all are."""
    return next((value for value in values if value is not None), None)
