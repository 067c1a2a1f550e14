"""The passes of exporting, declared: a checkpoint to ONNX for ONNX Runtime GenAI.  Light."""

from __future__ import annotations

from typing import Literal

from drupe.core.errors import Refused
from drupe.core.operation import Metric, Pass
from drupe.core.target import Target

Precision = Literal["fp32", "fp16", "bf16", "int8", "int4"]

# Which precision a provider's runtime loads, as seen by loading: the builder writes every pair
# and exits 0 for all of them.
LOADABLE: dict[str, tuple[Precision, ...]] = {
    "cpu": ("fp32", "int4", "int8"),
    "cuda": ("fp16", "bf16", "int4", "int8"),
    "dml": ("fp16", "int4"),
    "webgpu": ("fp32", "fp16", "int4"),
}


class ExportGenAI(Pass):
    """Write the ONNX folder that ONNX Runtime GenAI loads (Olive's name: ModelBuilder)."""

    takes, gives = ("hf",), "onnx-genai"
    libraries = ("onnxruntime-genai", "onnxruntime", "onnx-ir", "transformers", "torch")
    extra = "cpu"
    preload = ("torch", "transformers", "onnx_ir")
    work = "drupe.export.genai_builder:export"
    proof = "ExportProof"

    precision: Precision
    target: Target
    """The engine fills it in."""
    int4_block_size: Literal[16, 32, 64, 128, 256] = 32
    """Weights that share a scale."""
    int4_accuracy_level: Literal[0, 1, 2, 3, 4] | None = None
    """Computing type of MatMulNBits: 1 fp32, 2 fp16, 3 bf16, 4 int8; None: the target's best."""
    exclude_embeds: bool = False
    exclude_lm_head: bool = False

    def refusal(self, kind: str, target: Target) -> Refused | None:
        """Refuse a pair of precision and provider that no runtime loads."""
        loadable = LOADABLE[self.target.short_provider]
        if self.precision not in loadable:
            return Refused(
                "ModelBuilder.precision",
                f"{self.precision} for {self.target.provider} gives a model that no runtime loads",
                f"Choose one of {', '.join(loadable)}.",
            )
        return super().refusal(kind, target)


class ExportProof(Metric):
    """Compare the exported model's logits on probe text with those of the checkpoint."""

    takes, compares = ("onnx-genai",), True
    libraries = ("onnxruntime", "torch", "transformers")
    extra = "cpu"
    preload = ("torch", "transformers")
    work = "drupe.export.export_proof:prove"
