"""The client's side of a batch: what is transient is tried again; whatever began is ended."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest
from drupe_toys import Breaks, Reverse

from drupe.core.errors import DrupeError, StepError
from drupe.core.executor import Batch, Polled, Transient
from drupe.core.model import Model
from drupe.systems import follow
from tests.plain.conftest import spec_of

DONE = {"event": "done", "seconds": 1.0, "facts": {}, "machine": {}, "step": "0" * 64}


class Flaky:
    """A service whose calls fail as `faults` says, then succeed; it writes down what was asked."""

    slots, joins, here = 1, False, False

    def __init__(self, **faults: list[BaseException]) -> None:
        self.faults = faults
        self.asked: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *fault: object) -> None:
        pass

    def _ask(self, name: str) -> None:
        self.asked.append(name)
        if self.faults.get(name):
            raise self.faults[name].pop(0)

    def warm_up(self) -> None:
        pass

    def submit(self, batch: Batch) -> None:
        self._ask("submit")

    def poll(self, batch: Batch, seconds: float) -> Polled:
        self._ask("poll")
        return Polled("ended", (DONE,), "ended with exit code 0")

    def cancel(self, batch: Batch) -> None:
        self._ask("cancel")

    def fetch(self, batch: Batch, key: str, folder: Path) -> None:
        self._ask("fetch")

    def log(self, batch: Batch, key: str, folder: Path) -> None:
        self._ask("log")


def busy(after_seconds: float | None = None) -> Transient:
    return Transient("the service", "is busy (429)", "Wait.", after_seconds)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What would have been waited for, without waiting."""
    waited: list[float] = []
    monkeypatch.setattr(follow.Followed, "_sleep", lambda self, seconds: waited.append(seconds))
    return waited


@pytest.fixture
def followed(tmp_path: Path) -> Callable[..., Any]:
    def run(service: Flaky) -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = []
        spec = spec_of(Reverse(), "Reverse", Model("files", tmp_path, "d"))
        follow.run(service, spec, tmp_path, told.append)
        return told

    return run


def test_what_is_transient_is_tried_again_and_told(
    followed: Callable[..., Any], waits: list[float]
) -> None:
    service = Flaky(submit=[busy(), busy()], poll=[busy(7.0)], fetch=[busy(3600.0)])
    told = followed(service)
    assert service.asked == ["submit"] * 3 + ["poll"] * 2 + ["fetch"] * 2
    assert waits == [1.0, 2.0, 7.0, 60.0], "doubled; as asked for; a minute at most"
    assert told[0] == {"event": "note", "text": "the service: is busy (429); tried again in 1 s"}


def test_what_stays_busy_is_an_error_in_the_end(
    followed: Callable[..., Any], waits: list[float]
) -> None:
    service = Flaky(submit=[busy() for _ in range(99)])
    with pytest.raises(Transient, match=r"^the service: is busy \(429\)\n  Wait\.$"):
        followed(service)
    assert service.asked == ["submit"] * follow.ATTEMPTS + ["cancel"]
    assert waits == [1, 2, 4, 8, 16, 32, 60]


def test_what_is_not_transient_is_not_tried_again(
    followed: Callable[..., Any], waits: list[float]
) -> None:
    refused = DrupeError("the service", "does not know you (401)", "Log in.")
    service = Flaky(poll=[refused])
    with pytest.raises(DrupeError, match=r"does not know you \(401\)\n  Log in"):
        followed(service)
    assert service.asked == ["submit", "poll", "cancel"]
    assert waits == []


@pytest.mark.parametrize("when", ["submit", "poll"])
def test_ctrl_c_cancels_what_was_submitted(when: str, followed: Callable[..., Any]) -> None:
    service = Flaky(**{when: [KeyboardInterrupt()]})
    with pytest.raises(KeyboardInterrupt):
        followed(service)
    assert service.asked[-1] == "cancel"


def test_what_has_ended_is_not_cancelled(followed: Callable[..., Any], waits: list[float]) -> None:
    service = Flaky(fetch=[DrupeError("the service", "lost it", "Run again.")])
    with pytest.raises(DrupeError, match="lost it"):
        followed(service)
    assert "cancel" not in service.asked


class ToldAtOnce(Flaky):
    """A place that was not looked at before it had ended, badly."""

    def __init__(self, *events: dict[str, Any]) -> None:
        super().__init__()
        self.events = events

    def poll(self, batch: Batch, seconds: float) -> Polled:
        return Polled("ended", self.events, "ended with exit code 1", 1)


def test_what_was_done_before_a_failure_is_kept_though_it_is_heard_of_at_the_end(
    tmp_path: Path,
) -> None:
    first, second = "1" * 64, "2" * 64
    made = Model("files", Path(), "", step=first)
    specs = (
        spec_of(Reverse(), "Reverse", Model("files", tmp_path, "d"), first),
        spec_of(Breaks(how="error"), "Breaks", made, second),
    )
    failed = {"where": "Breaks, Breaks.how", "what": "is error", "remedy": "Choose another."}
    executor = ToldAtOnce(
        {**DONE, "facts": {"a": 1}, "step": first}, {"event": "failed", "step": second, **failed}
    )
    followed = follow.Followed(executor, Batch(specs, lambda key: tmp_path / key))
    assert followed.step(first, lambda event: None).facts == {"a": 1}
    with pytest.raises(StepError, match=r"^Breaks, Breaks\.how: is error\n  Choose another\.$"):
        followed.step(second, lambda event: None)


def test_the_last_steps_word_is_not_enough_where_its_process_fails(tmp_path: Path) -> None:
    spec = spec_of(Reverse(), "Reverse", Model("files", tmp_path, "d"))
    followed = follow.Followed(ToldAtOnce(DONE), Batch((spec,), lambda key: tmp_path))
    with pytest.raises(StepError, match=r"^Reverse: its process ended with exit code 1"):
        followed.step(spec.key, lambda event: None)
