"""Olive's words read into ours: one pure function a rule, applied in this order.

Each rule takes the config as far as it is upgraded, changes what it is about, and tells what it
changed in a `Note`. The numbers are those by which a rule is told and tested.

    rule    from                                          to
    N11     {"type": T, "config": {...}}                  {"type": T, ...}
    N11     host, cache_dir, ... at the top level         engine: {...}
    N11     {"type": "file", "path": P}                   P
    N11     host: {"type": ...}                           a system of that name
    N11     packaging_config: {...}                       packaging_config: [{...}]
    N1      data_configs: {name: {...}}                   data_configs: [{"name": name, ...}]
    N2      components, params_config, component_kwargs   {component}_config
    N2      {component}_config: {"params": {...}}         {component}_config: {...}
    N12     a list with one pass                          the pass (several are alternatives)
    N4      PyTorchModel + hf_config                      HfModel
    N5      model_file_format                             what the folder shows
    N3      accelerators: ["gpu"] + execution_providers   [{device, execution_providers}]
    N6      lora_r, source_max_len, corpus_strategy, ...  r, max_seq_len, strategy, ...
    N7      eval_dataset_size                             the same, split before tokenizing
    N8      double_quant under LoRA                       no effect: dropped with a warning
    N9      group_by_length, optim: paged_adamw_32bit     what today's transformers calls it
    N10     search_strategy: false, true, {...}           no search, every point, today's words
    N14     what recipes carry without effect             dropped, each named
    N15     strategy, joiner, lora_dropout left out       the default of the dialect
    N17     extra_options, int4_algo_config, ...          fields of ModelBuilder
    N18     Rtn, KQuant and their like beside it          its precision, grid and rounding
    N19     metrics accuracy, latency, custom, ...        Accuracy, Latency, Custom, ...
    N20     SEARCHABLE_VALUES, Categorical                {"search": [...]}

N13 (an AzureML system without a client) and N16 (fewer tokens than one block) are no matter of
words: the plan and the data tell them.
"""

from __future__ import annotations

from collections.abc import Callable

from drupe.config.dialects.builder import builder_words
from drupe.config.dialects.evaluators import evaluators
from drupe.config.dialects.harmless import harmless_keys
from drupe.config.dialects.layout import (
    components_by_name,
    data_configs_as_list,
    data_root,
    engine_at_the_top,
    flat_components,
    flat_params,
    flat_resources,
    named_components,
    one_pass_an_entry,
    packages_as_list,
)
from drupe.config.dialects.machines import accelerators
from drupe.config.dialects.meaning import (
    defaults_of_2024,
    four_bit_options,
    is_of_2024,
    rows_split_before_tokenizing,
)
from drupe.config.dialects.model import hugging_face_model, model_file_format
from drupe.config.dialects.names import renamed_fields, renamed_passes, training_arguments
from drupe.config.dialects.quantizers import quantizers
from drupe.config.dialects.rule import Note, Rule
from drupe.config.dialects.search import choices, search_strategy
from drupe.config.source import Map

RULES: tuple[Rule, ...] = (
    engine_at_the_top,
    named_components,
    flat_components,
    data_configs_as_list,
    components_by_name,
    flat_params,
    one_pass_an_entry,
    packages_as_list,
    flat_resources,
    hugging_face_model,
    model_file_format,
    data_root,
    accelerators,
    renamed_fields,
    renamed_passes,
    rows_split_before_tokenizing,
    four_bit_options,
    training_arguments,
    search_strategy,
    choices,
    builder_words,
    quantizers,
    evaluators,
    harmless_keys,
)


def upgrade(
    config: Map, overlay: Map | None = None, lay_over: Callable[[], None] = lambda: None
) -> list[Note]:
    """Rewrite `config` in place into the canonical schema; return what was done.

    overlay: a second config that goes before the first; it is upgraded too, and `lay_over` is
    called to put it there before anything is said of what was left out.
    """
    of_2024 = is_of_2024(config)
    notes = [note for rule in RULES for note in rule(config)]
    if overlay:
        # An overlay names entries: it has no lists of its own.
        rules = [rule for rule in RULES if rule is not data_configs_as_list]
        notes += [note for rule in rules for note in rule(overlay)]
    lay_over()
    return notes + (list(defaults_of_2024(config)) if of_2024 else [])


__all__ = ["RULES", "Note", "upgrade"]
