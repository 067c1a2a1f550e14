"""The passes of exporting, declared: a checkpoint to ONNX for ONNX Runtime GenAI.  Light."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Self

from drupe.checkpoint.header import headers
from drupe.core.effects import Idle
from drupe.core.errors import Refused
from drupe.core.libraries import library_version
from drupe.core.merging import Merging
from drupe.core.model import Model
from drupe.core.operation import Metric, Operation, Pass
from drupe.core.target import Target
from drupe.export.families import FAMILIES, architecture, mixture_of_experts, read_decoder
from drupe.export.parts import Parts
from drupe.finetune.passes import MergeAdapterWeights
from drupe.quantize.grid import BLOCK_SIZES

EXPORT_PRELOAD = (
    "torch",
    "transformers:AutoModelForCausalLM",
    "transformers:AutoTokenizer",
    "onnx_ir",
    "onnxruntime",
)
WHERE = "ModelBuilder"
Precision = Literal["fp32", "fp16", "bf16", "int8", "int4"]
Exporter = Literal["auto", "native", "genai"]

# Which precision a provider's runtime loads: the builder writes every pair and exits 0 for all.
# Tried with onnxruntime-genai 0.18 and onnxruntime 1.31 on a small Phi-3:
#   cpu: each pair was loaded and run; bf16 lacks kernels (Where); fp16 answers right where all
#     heads have keys of their own, and fails while generating where heads share them ("Shape
#     mismatch attempting to re-use buffer").
#   cuda, dml, webgpu: not run, for want of the devices. Each pair that is listed, bf16 aside, gives
#     a valid graph whose logits are right when it is run on the CPU. fp32 for cuda and dml gives an
#     invalid graph ("Graph output (present.0.key) does not exist"), although the builder's help
#     names FP32 CUDA. bf16 for cuda is a valid graph, which the CPU cannot run, and in the
#     builder's help; bf16 for dml and webgpu is not. int8 for dml is a valid graph but not in the
#     builder's help. fp16 and fp32 for webgpu are not in the help either, but their operators are
#     those of int4, whose activations are of these types.
LOADABLE: dict[str, tuple[Precision, ...]] = {
    "cpu": ("fp32", "int8", "int4"),
    "cuda": ("fp16", "bf16", "int8", "int4"),
    "dml": ("fp16", "int4"),
    "webgpu": ("fp32", "fp16", "int8", "int4"),
}

# What a weight takes in the file, scales with it; the embedding may take more.
BYTES_OF_WEIGHT = {"int4": 0.63, "int8": 1.13, "fp16": 2.0, "bf16": 2.0, "fp32": 4.0}

# What the builder of BUILDER knows among models of text; a later one may know more.
BUILDER = "0.18"
ARCHITECTURES = (
    *("ChatGLMForConditionalGeneration", "ChatGLMModel", "Ernie4_5ForCausalLM"),
    *("GemmaForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM", "GptOssForCausalLM"),
    *("GraniteForCausalLM", "GraniteMoeHybridForCausalLM", "HunYuanDenseV1ForCausalLM"),
    *("InternLM2ForCausalLM", "Lfm2ForCausalLM", "Lfm2MoeForCausalLM", "LlamaForCausalLM"),
    *("MistralForCausalLM", "NemotronForCausalLM", "OlmoForCausalLM", "PhiForCausalLM"),
    *("Phi3ForCausalLM", "Phi3SmallForCausalLM", "PhiMoEForCausalLM", "Qwen2ForCausalLM"),
    *("Qwen3ForCausalLM", "SmolLM3ForCausalLM"),
)
MIXTURES = ("GptOss", "GraniteMoeHybrid", "Lfm2Moe", "PhiMoE")  # of experts
CHOOSE_DENSE = (
    f"Choose a model without experts, of {', '.join(FAMILIES)}, or a mixture that the builder "
    f"knows: {', '.join(f'{name}ForCausalLM' for name in MIXTURES)}."
)

OF_MERGED_BYTE = 2e-9  # seconds on one of two cores
FAST = (None, 4)  # accuracy levels of 8-bit weights on the CPU
# What drupe's own exporter alone can do.
OWN_FIELDS = {"rounding": "rtn", "int4_is_symmetric": True, "quantize_embeddings": None}


def builder_is_known() -> bool:
    """Return whether the builder that is installed is the one of which ARCHITECTURES tells."""
    return (library_version("onnxruntime-genai") or "").startswith(f"{BUILDER}.")


def exporter_of(source: Model) -> Literal["native", "genai"]:
    """Return who exports a checkpoint, or an adapter's base, where the config leaves it open.

    What is quantized already is the builder's: it reads GPTQ's and AWQ's layouts.
    """
    config = _config(source)
    known = architecture(config) in FAMILIES and not config.get("quantization_config")
    return "native" if known else "genai"


def _config(source: Model) -> dict[str, Any]:
    """Return what config.json says; {} where it cannot be read."""
    try:
        file = (source.base or source).path / "config.json"
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}  # told where the model is looked at


def _architecture(source: Model) -> str:
    return architecture(_config(source))


class ExportGenAI(Pass):
    """Write the ONNX folder that ONNX Runtime GenAI loads."""

    takes, gives = ("hf",), "onnx-genai"
    version = 4
    libraries = ("onnxruntime-genai", "onnxruntime", "onnx-ir", "transformers", "torch")
    extra = "cpu"
    preload = EXPORT_PRELOAD
    work = "drupe.export.exporter:export"
    proof = "ExportProof"

    precision: Precision
    """Type of the weights: integers of 4 or 8 bits in blocks, or floats of 16 or 32."""
    target: Target
    """The engine fills it in."""
    int4_block_size: Literal[16, 32, 64, 128, 256] = 32
    """Weights that share a scale, in int4 and int8."""
    int4_accuracy_level: Literal[0, 1, 2, 3, 4] | None = None
    """Least exact computing type of MatMulNBits (int4 and int8): 1 fp32, 2 fp16, 3 bf16, 4 int8.

    0 leaves it to the runtime; None: the builder's default, 4 for cpu and webgpu, else 0.
    """
    rounding: Literal["rtn", "mse"] = "rtn"
    """How int4 and int8 are chosen: rtn, to nearest; mse, by the least squared error of a block."""
    int4_is_symmetric: bool = True
    """Whether zero has the same code in every block (int4 and int8); else zero points are kept."""
    quantize_embeddings: bool | None = None
    """Keep the embedding in int4 or int8 too; None: where it is tied to the head, whose codes it
    then shares, as ONNX Runtime GenAI's builder has it."""
    exporter: Exporter = "auto"
    """native: drupe's own, one tensor in memory; genai: ONNX Runtime GenAI's builder, the model
    in memory several times over; auto: native for the families that it knows."""
    exclude_embeds: bool = False
    """Leave the embeddings out: the graph is given vectors in place of tokens."""
    exclude_lm_head: bool = False
    """Leave the output layer out: the graph gives hidden states in place of logits."""
    merging: Merging | None = None
    """The plan fills it in: how the adapter is merged on the way, where nobody asks for the merged
    checkpoint."""

    def accepts(self, kind: str) -> bool:
        """Return whether it works on models of `kind`: adapters, where it merges them."""
        return kind in self.takes if self.merging is None else kind == "hf-adapter"

    def with_inside(self, before: Operation) -> Self | None:
        """Return this pass with the merge that stands before it done on the way, or None.

        drupe's own exporter can: it reads each weight by itself.
        """
        if type(before) is not MergeAdapterWeights or type(self) is not ExportGenAI:
            return None  # what is derived from them may do other work
        if self.exporter != "native":
            return None
        return self.model_copy(update={"merging": Merging(base=before.base)})

    def deciding_libraries(self) -> tuple[str, ...]:
        """Return the libraries, with those of the merge that is done on the way."""
        more = MergeAdapterWeights.libraries if self.merging else ()
        return tuple(dict.fromkeys((*self.libraries, *more)))

    def key_form(self, digest: Callable[[Path], str]) -> Any:
        """Return the key form with the target's threads: genai_config.json names them."""
        return _of_merging({**super().key_form(digest), "threads": self.target.threads})

    def refusal(self, kind: str, target: Target) -> Refused | None:
        """Refuse a pair of precision and provider that no runtime loads."""
        loadable = LOADABLE[self.target.short_provider]
        level = self.int4_accuracy_level
        if self.precision == "int8" and self.target.short_provider == "cpu" and level not in FAST:
            return Refused(
                f"{WHERE}.int4_accuracy_level",
                f"is {level}, at which products of 8-bit weights take 86 times as long on the CPU",
                "Leave it out, or write 4.",
            )
        if self.precision not in loadable:
            return Refused(
                f"{WHERE}.precision",
                f"{self.precision} for {self.target.provider} gives a model that no runtime loads",
                f"Choose one of {', '.join(loadable)}.",
            )
        return super().refusal(kind, target)

    def settled(self, source: Model) -> tuple[Self, str]:
        """Return the pass with its exporter chosen by the model's family."""
        if self.exporter != "auto":
            return self, ""
        exporter, note = exporter_of(source), ""
        if exporter == "genai":
            gigabytes = 3.1 * _weights_bytes(source) / 10**9
            note = (
                f"{_architecture(source) or 'this model'} is exported by ONNX Runtime GenAI's "
                f"builder, with the whole model in memory (about {gigabytes:.1f} GB): drupe itself "
                f"does {', '.join(FAMILIES)}"
            )
        return self.model_copy(update={"exporter": exporter}), note

    def refusal_of_source(self, source: Model) -> Refused | None:
        """Refuse a model whose architecture the exporter does not know."""
        name = _architecture(source)
        if not name:
            return None
        mixture = _refusal_of_mixture(self, name, _config(source))
        if mixture is not None:
            return mixture
        if self.exporter == "native":
            return _refusal_of_headers(self, source)
        own = [field for field, usual in OWN_FIELDS.items() if getattr(self, field) != usual]
        if own:
            return Refused(
                "ModelBuilder",
                f"sets {' and '.join(own)}, which ONNX Runtime GenAI's builder does not know, and "
                f"{name} is exported by it",
                f"Leave it out, or choose a model of {', '.join(FAMILIES)}.",
            )
        if name not in ARCHITECTURES and builder_is_known():
            return Refused(
                "ModelBuilder",
                f"ONNX Runtime GenAI's builder does not know {name}",
                f"It knows {', '.join(ARCHITECTURES)}; drupe itself {', '.join(FAMILIES)}.",
            )
        return None

    def proof_fields(self) -> dict[str, Any]:
        """Return the precision, on which depends what the proof takes, and what was merged."""
        return {"precision": self.precision, **({"merging": self.merging} if self.merging else {})}

    def variant(self) -> str:
        """Return the precision, the provider and who exports: each is work of its own."""
        more = "-genai" if self.exporter == "genai" else "-merging" if self.merging else ""
        return f"-{self.precision}-{self.target.short_provider}{more}"

    def rule_of_thumb(
        self, work: float, model_bytes: int
    ) -> tuple[float | None, int | None, int | None]:
        """Return what 3.8B parameters in bfloat16 took on two cores.

        The builder holds the whole model in memory, several times over.
        """
        share = {"int4": 0.33, "int8": 0.55, "fp32": 2.0}.get(self.precision, 1.0)
        if self.exporter == "genai":
            memory = 350 * 10**6 + int(3.1 * model_bytes)
            return 0.5 + 1.8e-8 * work, memory, int(share * model_bytes)
        of_byte = 2.2e-9 if self.rounding == "rtn" else 2.2e-8
        of_byte += OF_MERGED_BYTE if self.merging else 0.0
        return 0.5 + of_byte * work, 600 * 10**6, int(share * model_bytes)

    def without_effect(self) -> list[Idle]:
        """Return the options of blocks of weights, where the weights are in no blocks."""
        if self.precision in ("int4", "int8"):
            return []
        return [
            Idle((name,), f"has no effect in {self.precision}: it is about int4 and int8")
            for name in OF_BLOCKS
            if name in self.model_fields_set
        ]


def _of_merging(form: dict[str, Any]) -> dict[str, Any]:
    """Return a key form that names a merge only where there is one."""
    return {name: value for name, value in form.items() if name != "merging" or value is not None}


def _weights_bytes(source: Model) -> int:
    folder = (source.base or source).path
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def _refusal_of_mixture(step: ExportGenAI, name: str, config: dict[str, Any]) -> Refused | None:
    """Return why a mixture of experts is exported by nobody, or None.

    drupe does none itself, and of one builder alone it is known which it does.
    """
    mixture = mixture_of_experts(config)
    if not mixture or name in FAMILIES:
        return None
    what = f"cannot export {name}: it is {mixture}"
    if step.exporter == "native":
        return Refused(
            WHERE,
            f"{what}, which drupe's own exporter does not do",
            'Leave "exporter" out: ONNX Runtime GenAI\'s builder does this one.'
            if name in ARCHITECTURES
            else CHOOSE_DENSE,
        )
    if name in ARCHITECTURES or not builder_is_known():
        return None
    return Refused(
        WHERE, f"{what}, which neither drupe nor ONNX Runtime GenAI's builder knows", CHOOSE_DENSE
    )


def _refusal_of_headers(step: ExportGenAI, source: Model) -> Refused | None:
    """Return what of config.json and the weights' headers drupe cannot export, or None."""
    folder = (source.base or source).path
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        quantized = config.get("quantization_config")
        if quantized:
            return Refused(
                WHERE,
                f"the checkpoint is quantized already ({quantized.get('quant_method')}), which "
                "drupe's own exporter does not read",
                'Leave "exporter" out: ONNX Runtime GenAI\'s builder reads GPTQ and AWQ.',
            )
        decoder = read_decoder(config, WHERE)
        specs = {spec.name: spec for spec in headers(folder)}
        if specs:  # else they are elsewhere
            Parts(decoder, specs, WHERE).check()
    except Refused as fault:
        return fault
    if step.quantize_embeddings and decoder.hidden % step.int4_block_size:
        fit = [size for size in BLOCK_SIZES if decoder.hidden % size == 0]
        return Refused(
            f"{WHERE}.int4_block_size",
            f"is {step.int4_block_size}, which does not divide the {decoder.hidden} columns of the "
            "embedding that is to be quantized",
            f"Choose one of {', '.join(map(str, fit))}, or leave quantize_embeddings out."
            if fit
            else "Leave quantize_embeddings out.",
        )
    return None


OF_BLOCKS = (
    *("int4_block_size", "int4_accuracy_level", "int4_is_symmetric"),
    *("rounding", "quantize_embeddings"),
)


class ExportProof(Metric):
    """Compare the exported model's weights, logits and tokens with the checkpoint's.

    Each matrix of the file, and what is computed with it on probe text; one layer of the checkpoint
    is in memory at a time. It also writes down how the model answers here, for `verify.py` on the
    target.
    """

    takes, compares = ("onnx-genai",), True
    version = 5
    libraries = (
        *("onnxruntime", "onnxruntime-genai", "onnx-ir", "torch", "transformers"),
        *("accelerate", "safetensors"),
    )
    extra = "cpu"
    preload = EXPORT_PRELOAD
    work = "drupe.export.export_proof:prove"

    precision: Precision | None = None
    """That of the export."""
    merging: Merging | None = None
    """How the adapter was merged on the way, where it was."""

    def key_form(self, digest: Callable[[Path], str]) -> Any:
        """Return the key form without what is usual."""
        return _of_merging(super().key_form(digest))

    def variant(self) -> str:
        """Return the precision: the less a weight takes, the more of them are in a byte."""
        merging = "-merging" if self.merging else ""
        return f"-{self.precision}{merging}" if self.precision else merging

    def rule_of_thumb(
        self, work: float, model_bytes: int
    ) -> tuple[float | None, int | None, int | None]:
        """Return what 3.8B parameters in int4 took on two cores.

        The checkpoint takes 0.7 GB of it, the export as it is deployed, for its goldens, the most.
        """
        parameters = work / BYTES_OF_WEIGHT.get(self.precision or "fp32", 4.0)
        return 1.0 + 4.5e-8 * parameters, 400 * 10**6 + int(1.2 * model_bytes), 0
