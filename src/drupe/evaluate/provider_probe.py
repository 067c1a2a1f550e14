"""Load one execution provider, in a process of its own: a crash is an answer.

python -m drupe.evaluate.provider_probe         the providers that are listed, as JSON
python -m drupe.evaluate.provider_probe NAME    status 0 when a session with NAME runs
"""

from __future__ import annotations

import json
import sys

import numpy as np
import onnxruntime

# One Identity node, x -> y, one float (opset 13, IR 8): the smallest model that makes a session.
MODEL = bytes.fromhex(
    "08083a370a100a017812017922084964656e746974791201675a0f0a0178120a0a08080112040a020801"
    "620f0a0179120a0a08080112040a02080142040a00100d"
)


def main(words: list[str]) -> int:
    """List the providers, or load the one that `words` names; return the exit status."""
    if not words:
        print(json.dumps(onnxruntime.get_available_providers()))  # noqa: T201  its answer
        return 0
    session = onnxruntime.InferenceSession(MODEL, providers=[words[0]])
    if words[0] not in session.get_providers():  # ONNX Runtime falls back to the CPU by itself
        sys.exit(f"the session runs on {', '.join(session.get_providers())} instead")
    session.run(None, {"x": np.zeros(1, np.float32)})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
