"""N19: Olive's evaluators read as drupe's metrics.

    {"type": "accuracy", "sub_types": [{"name": "f1_score", "metric_config": C}], ...}
        {"type": "Accuracy", "metric_config": {"f1_score": C}, "sub_types": [...], ...}
    {"type": "latency", ...}       Latency, what all sub types say in metric_config as its fields
    {"type": "custom", "user_config": {...}}       Custom, with those fields
    an evaluator {"type": "LMEvaluator", ...}      its metric LmEval

Perplexity was a sub type of accuracy; it is a metric of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from drupe.config.dialects.rule import Note, maps, move_all, section, short
from drupe.config.source import Items, Map, Origin

TYPES = {
    "accuracy": "Accuracy",
    "latency": "Latency",
    "throughput": "Throughput",
    "size_on_disk": "Size",
    "custom": "Custom",
}
COSTS = ("Latency", "Throughput", "Size")
LM_EVALUATOR = "LMEvaluator"
# What an LMEvaluator says of the runtime: what is judged is what is deployed, as it is deployed.
OF_THE_RUNTIME = ("model_class", "device", "ep", "ep_options", "name", "batch_size")
# Of `user_config`: what is about tensors and sessions, which no config here has to describe.
OF_THE_SESSION = (
    *("inference_settings", "io_bind", "shared_kv_buffer", "input_names", "input_shapes"),
    *("input_types", "batch_size", "run_kwargs"),
)
CODE = ("dataloader_func", "post_processing_func", "post_func", "evaluate_func", "metric_func")
TO_SAY = "Name the rows in data_config; or measure it by a function of your own: type Custom."


def evaluators(config: Map) -> Iterator[Note]:
    """N19: metrics by their names of today, each with its own fields."""
    for evaluator in maps(config.get("evaluators")):
        if evaluator.get("type") == LM_EVALUATOR:
            yield from _language_model_evaluator(evaluator)
        metrics = evaluator.get("metrics")
        if not isinstance(metrics, Items):
            continue
        read = Items()
        for entry, origin in zip(metrics, metrics.origins, strict=True):
            kind = entry.get("type") if isinstance(entry, Map) else None
            if isinstance(kind, str) and kind.lower() in TYPES and kind not in TYPES.values():
                yield from _metric(entry, TYPES[kind.lower()], read, origin)
            else:
                read.add(entry, origin)
        evaluator.put("metrics", read, evaluator.origins["metrics"])


def _language_model_evaluator(evaluator: Map) -> Iterator[Note]:
    """Put what an LMEvaluator says into one metric."""
    origin = evaluator.drop("type")
    entry = Map(origin)
    entry.put("name", "lm_eval", origin)
    entry.put("type", "LmEval", origin)
    arguments = evaluator.get("type_args")
    if isinstance(arguments, Map):
        evaluator.drop("type_args")
        yield from move_all("N19", arguments, evaluator)
    for key in [key for key in evaluator if key != "metrics"]:
        if key in OF_THE_RUNTIME:
            where = evaluator.drop(key)
            text = f"{where.path} has no effect: what is judged is what is deployed"
            yield Note("N19", where.where, text)
        else:
            evaluator.move(key, entry)
    metrics = evaluator.get("metrics")
    listed = metrics if isinstance(metrics, Items) else Items()
    listed.add(entry, origin)
    evaluator.put("metrics", listed, origin)
    yield Note("N19", origin.where, f"{origin.path} {LM_EVALUATOR} is read as a metric LmEval")


def _metric(entry: Map, kind: str, read: Items, origin: Origin) -> Iterator[Note]:
    """Add a metric of Olive's to `read`, in today's words."""
    written = entry["type"]
    entry.put("type", kind, entry.origins["type"])
    yield Note("N19", entry.origins["type"].where, f'metric "{written}" is read as {kind}')
    yield from _backend(entry)
    yield from _user_config(entry, kind)
    if kind == "Accuracy":
        yield from _arguments_of_numbers(entry)
        yield from _perplexity_apart(entry, read, origin)
    elif kind in COSTS:
        yield from _arguments_of_all(entry)
        if "data_config" in entry:
            where = entry.drop("data_config")
            text = f"{where.path} has no effect on {kind}, which makes its own prompts"
            yield Note("N19", where.where, text)
    read.add(entry, origin)


def _backend(entry: Map) -> Iterator[Note]:
    if "backend" not in entry:
        return
    value, origin = entry["backend"], entry.drop("backend")
    if value not in ("torch_metrics", None):
        text = f"{origin.path} asks for {short(value)}, and torchmetrics judges here"
        remedy = "Leave it out, and name numbers of torchmetrics in sub_types: accuracy_score, ..."
        yield Note("N19", origin.where, text, "fault", remedy)


def _user_config(entry: Map, kind: str) -> Iterator[Note]:
    """Give a metric's fields what `user_config` says; what is no field is told, or refused."""
    given = entry.get("user_config")
    if not isinstance(given, Map):
        return
    entry.drop("user_config")
    if kind == "Custom":
        for key in [key for key in given if key in ("inference_settings", "io_bind")]:
            where = given.drop(key)
            yield Note("N19", where.where, f"{where.path} has no effect: the function is given it")
        yield from move_all("N19", given, entry)
        return
    for key in list(given):
        value, where = given[key], given.origins[key]
        if value in (None, "", {}, []) or key in OF_THE_SESSION:
            text = f"{where.path} has no effect: the metric knows the model's inputs"
            yield Note("N19", where.where, text)
        elif kind in COSTS and key != "evaluate_func":
            text = f"{where.path} has no effect on {kind}, which makes its own prompts"
            yield Note("N19", where.where, text, "warning")
        else:
            what = "names code to run" if key in CODE else "gives data by code"
            yield Note("N19", where.where, f"{where.path} {what} ({short(value)})", "fault", TO_SAY)
        given.drop(key)


def _arguments_of_numbers(entry: Map) -> Iterator[Note]:
    """Move each sub type's arguments of torchmetrics to the metric, under the number's name."""
    for sub_type in maps(entry.get("sub_types")):
        arguments, name = sub_type.get("metric_config"), sub_type.get("name")
        if "metric_config" not in sub_type:
            continue
        origin = sub_type.drop("metric_config")
        if isinstance(arguments, Map) and arguments and isinstance(name, str):
            section(entry, "metric_config", origin).put(name, arguments, origin)
            yield Note("N19", origin.where, f"{origin.path} is read as metric_config.{name}")


def _arguments_of_all(entry: Map) -> Iterator[Note]:
    """Make what the sub types say of warm-up and repeats fields of the metric: one measurement."""
    for sub_type in maps(entry.get("sub_types")):
        arguments = sub_type.get("metric_config")
        if "metric_config" not in sub_type:
            continue
        sub_type.drop("metric_config")
        if isinstance(arguments, Map):
            for key in list(arguments):
                yield from _one_value(arguments, key, entry)


def _one_value(arguments: Map, key: str, entry: Map) -> Iterator[Note]:
    known: Any = entry.get(key)
    if key in entry and known != arguments[key]:
        origin = arguments.origins[key]
        text = f"{origin.path} is {short(arguments[key])}, but {entry.origins[key].path} is "
        remedy = "Measure once: keep one of them, or write two metrics."
        yield Note("N19", origin.where, text + short(known), "fault", remedy)
    elif key not in entry:
        entry.put(key, arguments[key], arguments.origins[key])


def _perplexity_apart(entry: Map, read: Items, origin: Origin) -> Iterator[Note]:
    """Make a metric Perplexity of the sub type of that name."""
    listed = entry.get("sub_types")
    if not isinstance(listed, Items):
        return
    own, others = Items(), Items()
    for sub_type, where in zip(listed, listed.origins, strict=True):
        is_perplexity = isinstance(sub_type, Map) and sub_type.get("name") == "perplexity"
        (own if is_perplexity else others).add(sub_type, where)
    if not own:
        return
    where = entry.origins["sub_types"]
    yield Note("N19", where.where, f"{where.path}: perplexity is read as a metric Perplexity")
    arguments = entry.get("metric_config")
    if isinstance(arguments, Map) and "perplexity" in arguments:
        arguments.drop("perplexity")
        if not arguments:
            entry.drop("metric_config")
    if not others:
        entry.put("type", "Perplexity", entry.origins["type"])
        return
    entry.put("sub_types", others, where)
    apart = Map(origin)
    for key in ("type", "data_config", "sub_types", "max_samples"):
        if key in entry:
            apart.put(key, entry[key], entry.origins[key])
    apart.put("type", "Perplexity", entry.origins["type"])
    apart.put("sub_types", own, where)
    apart.put("name", f"{entry.get('name', 'accuracy')}_perplexity", origin)
    read.add(apart, origin)
