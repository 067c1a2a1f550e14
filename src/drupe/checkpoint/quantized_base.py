"""What an adapter that was trained on a 4-bit base remembers of that base.  Light: no torch.

PEFT's adapter_config.json has no place for it, and without it nobody could say which weights the
adapter was trained against: those of the checkpoint are not they.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from drupe.core.errors import Refused
from drupe.core.files import write_atomic

FILE = "quantized_base.json"
FORMAT = 1
BLOCK = 64  # weights that share a scale: bitsandbytes' and transformers' default


@dataclass(frozen=True)
class QuantizedBase:
    """How bitsandbytes rounded the base's linear layers.

    quant_type: "nf4" or "fp4". double_quant: the scales are quantized too. dtype: in which the
    weights were held before, and to which they are dequantized ("bfloat16"). compute_dtype: of the
    products. modules: names of the layers. start: "loftq" where the adapter began as what the
    rounding took away, else None.
    """

    quant_type: str
    double_quant: bool
    dtype: str
    compute_dtype: str
    modules: tuple[str, ...]
    start: str | None = None

    def write(self, folder: Path) -> None:
        """Write it beside the adapter in `folder`."""
        value = {"format": FORMAT, "method": "bitsandbytes", **asdict(self)}
        write_atomic(folder / FILE, (json.dumps(value, indent=2) + "\n").encode())


def quantized_base(adapter: Path) -> QuantizedBase | None:
    """Return what the adapter in the folder says of its base; None: it is as it was.

    Raises Refused for a file that is not drupe's.
    """
    file = adapter / FILE
    if not file.is_file():
        return None
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
        known = (value.pop("format"), value.pop("method"))
        found = QuantizedBase(**{**value, "modules": tuple(value["modules"])})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as fault:
        what = f"does not say how the base was quantized: {fault}"
        raise Refused(str(file), what, "Train the adapter again.") from fault
    if known != (FORMAT, "bitsandbytes"):
        what = (
            f"is of format {known[0]}, by {known[1]}: this version reads {FORMAT}, by bitsandbytes"
        )
        raise Refused(str(file), what, "Train the adapter again, or use the newer drupe.")
    return found
