"""How MLflow loads this model: as a python_function, by ONNX Runtime GenAI."""

import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when the runtime is loaded

import onnxruntime_genai

NEW_TOKENS = 256


class Model:
    """Answers prompts: predict(["..."]), or a data frame whose first column holds them."""

    def __init__(self, folder: Path) -> None:
        settings = json.loads((folder / "genai_config.json").read_text())
        self._context: int = settings["model"]["context_length"]
        self._has_template = (folder / "chat_template.jinja").is_file()
        self._model = onnxruntime_genai.Model(str(folder))
        self._tokenizer = onnxruntime_genai.Tokenizer(self._model)
        # A chat template writes the begin of text itself; plain text is begun as in training.
        self._tokenizer.update_options(add_special_tokens="false" if self._has_template else "true")

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> list[str]:
        """Return an answer for each prompt; params: {"max_new_tokens": 256}."""
        most = int((params or {}).get("max_new_tokens", NEW_TOKENS))
        rows = model_input.iloc[:, 0] if hasattr(model_input, "iloc") else model_input
        return [self._answer(str(prompt), most) for prompt in rows]

    def _answer(self, text: str, new_tokens: int) -> str:
        if self._has_template:
            messages = json.dumps([{"role": "user", "content": text}])
            text = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True)
        ids = self._tokenizer.encode(text)
        parameters = onnxruntime_genai.GeneratorParams(self._model)
        parameters.set_search_options(max_length=min(self._context, len(ids) + new_tokens))
        generator = onnxruntime_genai.Generator(self._model, parameters)
        generator.append_tokens(ids)
        tokens = []
        while not generator.is_done():
            generator.generate_next_token()
            token = generator.get_next_tokens()[0]
            if token not in self._tokenizer.eos_token_ids:
                tokens.append(token)
        answer: str = self._tokenizer.decode(tokens)
        return answer


def _load_pyfunc(data_path: str) -> Model:
    """Return the model in `data_path`; MLflow calls it."""
    return Model(Path(data_path))
