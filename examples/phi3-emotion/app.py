"""Ask the finished model for the tone of a phrase; needs onnxruntime-genai and nothing else.

python app.py --phrase "The cake came fresh from the oven!"
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when the runtime is loaded

import onnxruntime_genai

PROMPT = "### Text: {phrase}\n### The tone is:\n"
MODEL = (
    Path(__file__).parent / "models/phi3-emotion/lora-merge_adapter_weights-builder/cpu-cpu_model"
)

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--phrase", required=True)
parser.add_argument("--model-path", type=Path, default=MODEL)
arguments = parser.parse_args()

model = onnxruntime_genai.Model(str(arguments.model_path))
tokenizer = onnxruntime_genai.Tokenizer(model)
tokenizer.update_options(add_special_tokens="true")  # begin of text, as in training
tokens = tokenizer.encode(PROMPT.format(phrase=arguments.phrase))

parameters = onnxruntime_genai.GeneratorParams(model)
parameters.set_search_options(max_length=len(tokens) + 16, do_sample=False)
generator = onnxruntime_genai.Generator(model, parameters)
generator.append_tokens(tokens)
while not generator.is_done():
    generator.generate_next_token()
answer = tokenizer.decode(generator.get_sequence(0)[len(tokens) :])
print(answer.strip().split("\n")[0])
