"""What the plan of a config works on: models, adapters and rows, wherever they lie.

What lies elsewhere is brought here, as from the Hub, unless the system that works on it is given
the address itself (`System.reads`): then the small files of a model are enough to plan by.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from drupe.core.dataset import Dataset
from drupe.core.digest import DigestMemo
from drupe.core.errors import Refused
from drupe.core.model import Model, check_kind
from drupe.core.operation import AnyOperation
from drupe.core.resource import AzureMLClient, Remote
from drupe.resources.checks import check_adapter
from drupe.resources.fetch import FOLDER, Kept, Note
from drupe.resources.models import (
    Located,
    checkpoint,
    locate,
    locate_adapter,
    locate_export,
    locate_files,
)
from drupe.resources.remote import Resolved, ending, resolve
from drupe.resources.rows import located

MODEL, ADAPTER = "input_model.model_path", "input_model.adapter_path"
Reads = Callable[[Remote], bool]


@dataclass
class Inputs:
    """Finds what a config names; each thing elsewhere is asked for once.

    folder: the config's. cache: the cache's. client: the workspace of a resource that lies in
    one. reads: whether all systems that work on the input model are given its address.
    reaches_hub: whether all of them fetch a model of the Hub themselves. used: the digests under
    which the cache keeps what was fetched.
    """

    folder: Path
    cache: Path
    digests: DigestMemo
    client: Callable[[Remote, str], AzureMLClient | None]
    note: Note
    reads: Reads
    reaches_hub: bool = False
    used: set[str] = field(default_factory=set)
    _known: dict[str, Resolved] = field(default_factory=dict)

    def model(
        self, name: str | Remote, revision: str | None, remote_code: bool, *, needs_tokenizer: bool
    ) -> Located:
        """Return the checkpoint that `name` stands for."""
        if isinstance(name, str):
            return locate(
                name,
                self.folder,
                revision,
                remote_code,
                self.digests,
                needs_tokenizer=needs_tokenizer,
                fetched_there=self.reaches_hub,
            )
        resolved, kept, whole = self._fetched(name, MODEL)
        found = checkpoint(
            kept.path,
            remote_code,
            lambda local: resolved.digest,
            needs_tokenizer=needs_tokenizer,
            whole=whole,
        )
        size = None if whole else resolved.listing.size_bytes
        model = _sourced(found.model, resolved, whole)
        return replace(found, model=model, name=resolved.name, elsewhere_bytes=size)

    def adapter(self, name: str | Remote, base: Model) -> Model:
        """Return the adapter of a model."""
        if isinstance(name, str):
            return locate_adapter(name, self.folder, base, self.digests)
        resolved, kept, whole = self._fetched(name, ADAPTER)
        if whole:
            check_adapter(kept.path)
        model = Model("hf-adapter", kept.path, resolved.digest, base, base.remote_code)
        return _sourced(model, resolved, whole)

    def files(self, name: str | Remote) -> Located:
        """Return a folder of any files."""
        if isinstance(name, str):
            return locate_files(name, self.folder, self.digests)
        resolved, kept, whole = self._fetched(name, MODEL)
        check_kind("files", kept.path)
        model = _sourced(Model("files", kept.path, resolved.digest), resolved, whole)
        size = None if whole else resolved.listing.size_bytes
        return Located(model, resolved.name, elsewhere_bytes=size)

    def export(self, name: str | Remote) -> Located:
        """Return the folder of an exported model."""
        if isinstance(name, str):
            return locate_export(name, self.folder, self.digests)
        resolved, kept, whole = self._fetched(name, MODEL)
        check_kind("onnx-genai", kept.path)
        model = _sourced(Model("onnx-genai", kept.path, resolved.digest), resolved, whole)
        size = None if whole else resolved.listing.size_bytes
        return Located(model, resolved.name, elsewhere_bytes=size)

    def rows(self, operation: AnyOperation, reads: Reads) -> AnyOperation:
        """Return an operation with its data sets here; reads: its system is given the address."""
        update = {}
        for name in type(operation).model_fields:
            value = getattr(operation, name)
            if isinstance(value, Dataset):
                update[name] = self._dataset(located(value), reads)
        return operation.model_copy(update=update) if update else operation

    def _dataset(self, dataset: Dataset, reads: Reads) -> Dataset:
        source = dataset.load_dataset_config
        if not isinstance(source.data_files, Remote):
            return dataset
        resolved = self._resolved(source.data_files, f"{dataset.name}.data_files")
        remote = resolved.remote
        fetched = None if reads(remote) else self._kept(resolved.here()).path
        if fetched is None and remote.type == "azureml_job_output":
            remote = ending(remote, is_file=resolved.listing.is_file)
        update = {"data_files": remote, "fetched": fetched}
        source = source.model_copy(update=update)
        return dataset.model_copy(update={"load_dataset_config": source})

    def _fetched(self, remote: Remote, where: str) -> tuple[Resolved, Kept, bool]:
        """Return what a model's folder is elsewhere, what of it is here, and whether all."""
        resolved = self._resolved(remote, where)
        whole = not self.reads(resolved.remote)
        kept = self._kept(resolved.here() if whole else resolved.small_files())
        if kept.listing.is_file:
            raise Refused(where, f"{remote.uri} is a file", "Give the folder of the model.")
        return resolved, kept, whole

    def _kept(self, kept: Kept) -> Kept:
        self.used.add(kept.path.relative_to(self.cache / FOLDER).parts[0])
        return kept

    def _resolved(self, remote: Remote, where: str) -> Resolved:
        known = remote.model_dump_json()
        if known not in self._known:
            client = self.client(remote, where)
            self._known[known] = resolve(remote, client, where, self.cache, self.note)
        return self._known[known]


def _sourced(model: Model, resolved: Resolved, whole: bool) -> Model:
    """Return a model with its address, where not all of it is here."""
    folder = ending(resolved.remote, is_file=False)
    return model if whole else replace(model, source=folder.source)
