"""N14: the arguments of transformers' Trainer that drupe does not take, each with its reason.

With those of `TrainingArgs` they are all that transformers has; a test holds that.
"""

from __future__ import annotations

from drupe.config.dialects.known import NOTHING, Harmless, Known, Refusal

UPLOAD = Refusal(NOTHING, "asks for an upload", "Upload the result yourself.")
TYPE = Refusal(NOTHING, "asks for a computing type", 'Write "torch_dtype" in the pass.')
PROCESSES = Refusal(NOTHING, "asks for several processes", "Leave it out: one process trains.")
COMPILED = Refusal(NOTHING, "asks for compiled code", "Leave it out.")
TRACKIO = Refusal(NOTHING, "is about trackio", "Leave it out: report_to names the trackers.")
ALONE = "one process trains"
IN_MEMORY = "the samples are in memory"
LOSS_ALONE = "the loss alone is measured"

TRAINING: Known = {
    # what is made, kept and told
    "output_dir": Harmless((None,), "the adapter goes into the cache, by its key"),
    "overwrite_output_dir": Harmless((), "a result is never overwritten, but kept by its key"),
    "resume_from_checkpoint": Harmless((None, False), "an interrupted training goes on by itself"),
    "restore_callback_states_from_checkpoint": Harmless(
        NOTHING, "an interrupted training goes on by itself"
    ),
    "ignore_data_skip": Refusal(
        NOTHING, "asks for other samples after an interruption", "Leave it out."
    ),
    "save_strategy": Harmless(("no", "steps", "epoch"), "save_steps says how often"),
    "save_total_limit": Harmless((), "two checkpoints are kept until the training is done"),
    "save_safetensors": Harmless((True,), "weights are always safetensors"),
    "save_only_model": Harmless(NOTHING, "a checkpoint holds all that going on needs"),
    "enable_jit_checkpoint": Harmless(NOTHING, "save_steps says how often"),
    **dict.fromkeys(("push_to_hub", "hub_model_id", "hub_private_repo", "hub_revision"), UPLOAD),
    **dict.fromkeys(("hub_token", "hub_always_push"), UPLOAD),
    "hub_strategy": Harmless(("every_save",), "nothing is uploaded"),
    "logging_strategy": Harmless(("steps",), "logging_steps says how often"),
    "logging_first_step": Harmless((True, False), "progress is shown here"),
    "logging_nan_inf_filter": Harmless((False,), "a loss that is no number stops the training"),
    "log_level": Harmless(("passive",), "the step's log holds the Trainer's words"),
    "disable_tqdm": Harmless((True, False), "progress is shown here"),
    "include_num_input_tokens_seen": Harmless(("no", False), "report.json has the tokens"),
    "skip_memory_metrics": Harmless((True, False), "the memory of each step is measured"),
    "project": Harmless(("huggingface",), "run_name says what a run is called"),
    **dict.fromkeys(("trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"), TRACKIO),
    "debug": Refusal(NOTHING, "asks for debugging", "Leave it out: a broken loss is told."),
    # how it is computed
    **dict.fromkeys(("fp16", "bf16", "fp16_full_eval", "bf16_full_eval"), TYPE),
    "tf32": Harmless((True, False, None), "TF32 is a choice of the GPU's libraries"),
    "use_cpu": Refusal(NOTHING, "asks for the CPU", 'Set CUDA_VISIBLE_DEVICES="" for the run.'),
    "adafactor": Harmless((False,), "optim names the optimizer"),
    "optim_args": Refusal(NOTHING, "asks for options of an optimizer", "Leave it out."),
    "optim_target_modules": Refusal(
        NOTHING, "asks for an optimizer of some layers", "Leave it out."
    ),
    **dict.fromkeys(("torch_compile", "torch_compile_backend", "torch_compile_mode"), COMPILED),
    **dict.fromkeys(("use_liger_kernel", "liger_kernel_config"), COMPILED),
    "activation_checkpointing": Refusal(
        NOTHING, "asks for less memory", 'Write "gradient_checkpointing".'
    ),
    "activation_checkpointing_kwargs": Refusal(
        NOTHING, "asks for less memory", 'Write "gradient_checkpointing".'
    ),
    "gradient_checkpointing_kwargs": Harmless(
        (*NOTHING, {"use_reentrant": False}, {"use_reentrant": True}), "the gradients are the same"
    ),
    "auto_find_batch_size": Refusal(
        NOTHING, "asks for a batch size to be found", 'Write "per_device_train_batch_size".'
    ),
    "torch_empty_cache_steps": Harmless((None,), "it changes no result"),
    "use_cache": Harmless((True, False), "training needs no cache"),
    "full_determinism": Harmless((False,), "on a CPU the same seed gives the same bytes"),
    # the samples
    "remove_unused_columns": Harmless((True, False), "the samples hold no other columns"),
    "label_names": Harmless((None, ["labels"]), "what is learnt of a row is said by its form"),
    "length_column_name": Harmless(("length",), "the tokens of a sample are counted"),
    "dataloader_num_workers": Harmless((0,), IN_MEMORY),
    "dataloader_persistent_workers": Harmless(NOTHING, IN_MEMORY),
    "dataloader_prefetch_factor": Harmless(NOTHING, IN_MEMORY),
    "dataloader_multiprocessing_context": Harmless(NOTHING, IN_MEMORY),
    "dataloader_in_order": Harmless((True,), IN_MEMORY),
    "dataloader_pin_memory": Harmless((True, False), "it changes no result"),
    "dataloader_drop_last": Refusal(
        NOTHING, "asks for the last batch to be left out", "Leave it out."
    ),
    # the measuring
    "do_train": Harmless((True, False), "the pass trains"),
    "do_eval": Harmless((True, False), "eval_strategy says when the loss is measured"),
    "do_predict": Harmless(NOTHING, "evaluators say what is measured"),
    "metric_for_best_model": Refusal(
        ("loss", "eval_loss", *NOTHING), "asks for another measure", "The loss decides: leave it."
    ),
    "greater_is_better": Refusal((False, None), "asks for the largest loss", "Leave it out."),
    "eval_delay": Refusal((0, None), "asks for the first measurement to wait", "Leave it out."),
    "eval_on_start": Refusal(NOTHING, "asks for the loss before training", "Leave it out."),
    "prediction_loss_only": Harmless((True, False), LOSS_ALONE),
    "include_for_metrics": Harmless(NOTHING, LOSS_ALONE),
    "batch_eval_metrics": Harmless(NOTHING, LOSS_ALONE),
    "eval_do_concat_batches": Harmless((True, False), LOSS_ALONE),
    "eval_use_gather_object": Harmless((True, False), LOSS_ALONE),
    "eval_accumulation_steps": Harmless((None,), LOSS_ALONE),
    # several processes
    **dict.fromkeys(("fsdp", "fsdp_config", "deepspeed", "parallelism_config"), PROCESSES),
    "accelerator_config": PROCESSES,
    "local_rank": Harmless((-1, 0), ALONE),
    "average_tokens_across_devices": Harmless((True, False), ALONE),
    "save_on_each_node": Harmless((True, False), ALONE),
    "log_on_each_node": Harmless((True, False), ALONE),
    "log_level_replica": Harmless(("warning", "passive"), ALONE),
    "ddp_find_unused_parameters": Harmless((True, False, None), ALONE),
    "ddp_bucket_cap_mb": Harmless((None,), ALONE),
    "ddp_broadcast_buffers": Harmless((True, False, None), ALONE),
    "ddp_static_graph": Harmless((True, False, None), ALONE),
    "ddp_backend": Harmless((None,), ALONE),
    "ddp_timeout": Harmless((1800,), ALONE),
}
