"""How MLflow loads this model: as a python_function, by transformers."""

from typing import Any

import transformers

NEW_TOKENS = 256


class Model:
    """Answers prompts: predict(["..."]), or a data frame whose first column holds them."""

    def __init__(self, folder: str) -> None:
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True
        )

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> list[str]:
        """Return an answer for each prompt; params: {"max_new_tokens": 256}."""
        most = int((params or {}).get("max_new_tokens", NEW_TOKENS))
        rows = model_input.iloc[:, 0] if hasattr(model_input, "iloc") else model_input
        return [self._answer(str(prompt), most) for prompt in rows]

    def _answer(self, text: str, new_tokens: int) -> str:
        has_template = bool(self._tokenizer.chat_template)
        if has_template:
            messages = [{"role": "user", "content": text}]
            text = self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        ids = self._tokenizer(text, return_tensors="pt", add_special_tokens=not has_template)[
            "input_ids"
        ]
        tokens = self._model.generate(ids, max_new_tokens=new_tokens)[0, ids.shape[1] :]
        answer: str = self._tokenizer.decode(tokens, skip_special_tokens=True)
        return answer


def _load_pyfunc(data_path: str) -> Model:
    """Return the model in `data_path`; MLflow calls it."""
    return Model(data_path)
