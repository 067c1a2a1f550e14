"""kill -9 in the middle of training, and the same command again: it goes on, and ends the same."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
from pathlib import Path

from tests.e2e.conftest import DRUPE, Job, page_in
from tests.waiting import until

SAVE_STEPS = 4


def prepare(job: Job) -> None:
    """Have the page's job train a little, save often, and stop after the adapter."""
    config = json.loads(job.config.read_text())
    config["passes"] = {"lora": config["passes"]["lora"]}
    arguments = config["passes"]["lora"]["config"]["training_args"]
    arguments |= {"save_steps": SAVE_STEPS, "max_steps": 40, "eval_steps": 40}
    config["data_configs"][0]["pre_process_data_config"]["params"]["source_max_len"] = 128
    config["engine"] |= {"cache_dir": "cache", "output_dir": "output", "evaluate": "none"}
    job.config.write_text(json.dumps(config))


def adapter(job: Job) -> str:
    """Return the digest of the delivered adapter's weights."""
    file = next((job.folder / "output").rglob("adapter_model.safetensors"))
    return hashlib.sha256(file.read_bytes()).hexdigest()


def checkpoints(folder: Path) -> list[Path]:
    """Return the whole checkpoints of a training that is under way."""
    return list(folder.glob("cache/work/*/scratch/**/complete.json"))


def test_goes_on_from_the_last_checkpoint_and_ends_in_the_same_bytes(tmp_path: Path) -> None:
    page = page_in(tmp_path)
    prepare(page)
    words = ["run", "olive-config.json", "--system", "local", "--target", "cpu"]
    client = subprocess.Popen(
        [DRUPE, *words], cwd=page.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    until(lambda: checkpoints(page.folder) or client.poll() is not None)
    client.send_signal(signal.SIGKILL)
    client.wait()
    assert checkpoints(page.folder), "no checkpoint was written"
    assert not (page.folder / "output").exists()
    until(lambda: not workers(page.folder), lambda: workers(page.folder))
    assert page.drupe(*words).returncode == 0
    resumed = page.report("output")["stages"][1]["facts"]["resumed_from"]
    assert resumed >= SAVE_STEPS
    broken = adapter(page)
    assert page.drupe(*words, "--force").returncode == 0
    assert page.report("output")["stages"][1]["facts"]["resumed_from"] in (None, 0)
    assert adapter(page) == broken


def workers(folder: Path) -> list[str]:
    """Return the command lines of processes that still work below `folder`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            where = str((process / "cwd").readlink())
            command = (process / "cmdline").read_bytes().decode()
        except OSError:
            continue
        if where == str(folder) and "drupe" in command:
            found.append(command)
    return found
