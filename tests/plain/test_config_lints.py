"""What a config says that will not do what its writer expects: each rule, and its silence."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from drupe.cli import main
from drupe.config.load import load
from drupe.core.errors import ConfigError, Fault, Refused
from drupe.core.requirements import asked_for
from drupe.systems.conda import faults, read
from tests.plain.conftest import Workspace

CLIENT = {"subscription_id": "1", "resource_group": "g", "workspace_name": "w"}


def conda(*lines: str, python: str = "python=3.11") -> str:
    """Return a conda file that has what drupe needs, with these lines in its pip section."""
    needed = [str(each) for each in asked_for()]
    pip = "".join(f"      - {line}\n" for line in [*needed, *lines])
    return f"dependencies:\n  - {python}\n  - pip\n  - pip:\n{pip}"


def on_azure(workspace: Workspace) -> Workspace:
    """Have the target be an AzureML system that lacks nothing."""
    container = {"base_image": "image", "conda_file_path": "conda.yaml"}
    workspace.config["systems"] = {
        "aml": {
            "type": "AzureML",
            "accelerators": [{"device": "gpu", "execution_providers": ["CUDAExecutionProvider"]}],
            "aml_compute": "gpus",
            "aml_docker_config": container,
        }
    }
    workspace.config["engine"]["host"] = "aml"
    workspace.config["azureml_client"] = dict(CLIENT)
    (workspace.folder / "conda.yaml").write_text(conda())
    return workspace


@pytest.fixture
def azure(workspace: Workspace) -> Workspace:
    return on_azure(workspace)


def warned(workspace: Workspace, **arguments: Any) -> list[str]:
    notes = load(workspace.write(), **arguments).notes
    return [said.text.partition(": ")[2] for said in notes if said.level == "warning"]


def unready(workspace: Workspace, **arguments: Any) -> list[str]:
    """Return what keeps the config from being run, without the line where that is said."""
    found = load(workspace.write(), **arguments).unready
    return [f"{fault.where.partition(': ')[2]} {fault.what}".strip() for fault in found]


def system(workspace: Workspace) -> Any:
    return workspace.config["systems"]["aml"]


def test_what_is_whole_is_not_warned_of(azure: Workspace) -> None:
    assert warned(azure) == []
    assert unready(azure) == []


def test_no_workspace(azure: Workspace) -> None:
    del azure.config["azureml_client"]
    assert unready(azure) == ["systems.aml has no workspace"]
    with pytest.raises(Refused) as refused:
        azure.plan()
    words = (
        r"config\.json:\d+: systems\.aml: has no workspace\n"
        r'  Write "azureml_client", or run with --system local\.'
    )
    assert re.search(words, str(refused.value))


def test_config_check_warns_of_what_a_plan_refuses(
    azure: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    system(azure)["aml_compute"] = "<compute>"
    assert main(["config", "check", str(azure.write())]) == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[0].endswith(
        ': systems.aml.aml_compute: is still a placeholder ("<compute>"): write your own'
    )
    assert "no fault, 1 warning" in shown


def test_a_token_without_a_key_vault(azure: Workspace) -> None:
    system(azure)["hf_token"] = True
    first, _ = unready(azure)
    assert first == "systems.aml.hf_token has no key vault to read the token from"
    azure.config["azureml_client"]["keyvault_name"] = "vault"
    [told] = unready(azure)
    assert told.endswith(
        ".conda_file_path names conda.yaml, which lacks azure-identity and azure-keyvault-secrets, "
        "which read the Hub's token in the key vault"
    )
    (azure.folder / "conda.yaml").write_text(conda("azure-identity", "azure-keyvault-secrets"))
    assert unready(azure) == []


def test_what_is_not_used_is_not_looked_at(azure: Workspace) -> None:
    system(azure)["aml_compute"] = "Your compute"
    azure.config["engine"]["host"] = None
    azure.config["engine"]["target"] = "aml"
    assert unready(azure) == []
    azure.config["engine"]["evaluate"] = "every-step"
    assert unready(azure) == ['systems.aml.aml_compute is still a placeholder ("Your compute")']
    azure.config["engine"]["target"] = None
    assert unready(azure) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"aml_compute": ""}, '.aml_compute is no compute\'s name ("")'),
        ({"aml_compute": "two words"}, '.aml_compute is no compute\'s name ("two words")'),
        ({"aml_docker_config": None}, " describes no environment"),
        ({"aml_environment_config": {"name": "e", "version": "1"}}, " describes two environments"),
        ({"aml_docker_config": {}}, ".aml_docker_config names no image"),
        (
            {"aml_docker_config": {"base_image": "two words"}},
            '.aml_docker_config.base_image is no image\'s name ("two words")',
        ),
        (
            {"aml_docker_config": {"dockerfile": "Dockerfile"}},
            ".aml_docker_config.dockerfile is there without build_context_path",
        ),
        (
            {"aml_docker_config": {"dockerfile": "Dockerfile", "build_context_path": "absent"}},
            ".aml_docker_config.build_context_path names FOLDER/absent, which is not there",
        ),
        (
            {"aml_docker_config": {"dockerfile": "Dockerfile", "build_context_path": "input"}},
            ".aml_docker_config.dockerfile names FOLDER/input/Dockerfile, which is not there",
        ),
        (
            {"aml_docker_config": {"base_image": "i", "build_context_path": "input"}},
            ".aml_docker_config.build_context_path is there without a dockerfile",
        ),
        (
            {"aml_docker_config": {"base_image": "i", "conda_file_path": "absent.yaml"}},
            ".aml_docker_config.conda_file_path names absent.yaml, which is not there",
        ),
        (
            {"resources": {"instance_typ": "big"}},
            ".resources.instance_typ is unknown; did you mean ",
        ),
        ({"resources": {"shm_size": "much"}}, '.resources.shm_size is "much"'),
        ({"resources": {"max_instance_count": "2"}}, '.resources.max_instance_count is "2"'),
    ],
)
def test_what_the_service_would_stumble_over(
    change: dict[str, Any], words: str, azure: Workspace
) -> None:
    system(azure).update(change)
    [found] = unready(azure)
    assert found.startswith("systems.aml" + words.replace("FOLDER", str(azure.folder)))


@pytest.mark.parametrize("name", ["azureml:env:1", "azureml://registries/r/environments/e", "a b"])
def test_a_malformed_environment(name: str, azure: Workspace) -> None:
    del system(azure)["aml_docker_config"]
    system(azure)["aml_environment_config"] = {"name": name, "version": "1"}
    words = f'systems.aml.aml_environment_config.name is no environment\'s name ("{name}")'
    assert unready(azure) == [words]


@pytest.mark.parametrize(("key", "words"), [(None, "no version"), ("label", "the label latest")])
def test_an_environment_that_may_change(key: str | None, words: str, azure: Workspace) -> None:
    del system(azure)["aml_docker_config"]
    system(azure)["aml_environment_config"] = {"name": "e"} | ({key: "latest"} if key else {})
    [told] = warned(azure)
    assert f"aml_environment_config names {words}: what it means may change" in told
    system(azure)["aml_environment_config"] = {"name": "e", "version": "3"}
    assert warned(azure) == []


def test_a_kubernetes_compute_is_named_like_any_other(azure: Workspace) -> None:
    system(azure)["aml_compute"] = "arc-cluster"
    system(azure)["resources"] = {"instance_type": "gpusmall", "shm_size": "16g"}
    assert unready(azure) == []


@pytest.mark.parametrize("field", ["instance_count", "aml_compute"])
def test_what_no_schema_allows_is_a_fault_at_once(field: str, azure: Workspace) -> None:
    if field == "instance_count":
        system(azure)[field] = 0
    else:
        del system(azure)[field]
    words = r"instance_count: input should be greater|aml_compute is missing"
    with pytest.raises(ConfigError, match=words):
        load(azure.write())


def told_of(azure: Workspace) -> list[Fault]:
    return list(load(azure.write()).unready)


@pytest.mark.parametrize(
    ("line", "what", "remedy"),
    [
        (
            "git+https://example.org/x/Olive@fix#egg=olive-ai[gpu]",
            "is a branch of Olive, ",
            "Leave",
        ),
        ("ort-nightly-gpu==1.18.0.dev20240307004", "is a nightly build, ", "Pin a released"),
        ("onnxruntime-gpu==1.19.0.dev20240601", "is a nightly build, ", "Pin a released version."),
        (
            "--extra-index-url https://example.org/_packaging/ORT-Nightly/simple/",
            "is a feed of nightly builds, ",
            "Leave it out, and pin released versions.",
        ),
        ("pydantic==1.10", "contradicts pydantic>=2.10, which drupe needs", "Mend this line."),
        ("trans formers", "is no requirement that pip reads", 'Write "name==version".'),
    ],
)
def test_a_line_that_cannot_work(line: str, what: str, remedy: str, azure: Workspace) -> None:
    text = conda(line)
    if line.startswith("pydantic"):
        text = "\n".join(each for each in text.split("\n") if "pydantic>=" not in each)
    (azure.folder / "conda.yaml").write_text(text)
    [fault] = told_of(azure)
    number = text.splitlines().index(f"      - {line}") + 1
    assert fault.where == f"conda.yaml:{number}"
    assert fault.what.startswith(f"{line} {what}")
    assert fault.remedy.startswith(remedy)


@pytest.mark.parametrize(
    "python", ["python=3.8.13", "python=3.10", "python==3.10.4", "python<3.11", "python 3.9.*"]
)
def test_an_old_python(python: str, azure: Workspace) -> None:
    (azure.folder / "conda.yaml").write_text(conda(python=python))
    [fault] = told_of(azure)
    assert str(fault) == (
        f"conda.yaml:2: {python} is older than the Python 3.11 of drupe\n"
        "  Write python=3.11 or newer."
    )


@pytest.mark.parametrize(
    "python", ["python=3.11", "python=3.12.1=h_cpython", "python>=3.9", "conda-forge::python=3.11"]
)
def test_a_python_that_is_new_enough(python: str, azure: Workspace) -> None:
    (azure.folder / "conda.yaml").write_text(conda("onnxruntime-gpu==1.30.0", python=python))
    assert unready(azure) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dependencies:\n  - a: [b\n", "conda.yaml:3: is not YAML: expected ',' or ']'"),
        ("", "conda.yaml:1: is empty"),
        ("- a\n", "conda.yaml:1: holds no names and values"),
        ("name: x\n", "conda.yaml:1: names no list of dependencies"),
        (conda() + "dependancies: []\n", "dependancies is unknown; did you mean"),
        (conda().replace("  - pip\n", "  - [pip]\n"), "is neither a package nor a pip section"),
        (conda().replace("  - python=3.11\n", ""), "names conda.yaml, which names no Python"),
        ("dependencies:\n  - python=3.11\n", "conda_file_path: names conda.yaml, which lacks "),
    ],
)
def test_a_file_that_is_no_conda_file(text: str, words: str, azure: Workspace) -> None:
    (azure.folder / "conda.yaml").write_text(text)
    [fault] = told_of(azure)
    assert words in str(fault).replace("\n", " ")


def test_what_drupe_needs_may_come_of_conda_too(azure: Workspace) -> None:
    needed = "".join(f"  - {each.name}\n" for each in asked_for())
    (azure.folder / "conda.yaml").write_text(f"dependencies:\n  - python=3.11\n{needed}")
    assert unready(azure) == []


def test_two_of_a_family_and_one_without_the_provider(azure: Workspace) -> None:
    text = conda("onnxruntime==1.31.1", "onnxruntime-gpu==1.31.1")
    (azure.folder / "conda.yaml").write_text(text)
    [fault] = told_of(azure)
    assert fault.what.startswith("onnxruntime-gpu==1.31.1 overwrites files of onnxruntime (line ")
    (azure.folder / "conda.yaml").write_text(conda("onnxruntime==1.31.1"))
    [fault] = told_of(azure)
    assert fault.what == (
        "onnxruntime==1.31.1 holds no CUDAExecutionProvider, which the system is to have"
    )
    assert fault.remedy == "Write onnxruntime-gpu in its place."
    system(azure)["accelerators"] = [{"device": "cpu"}]
    assert unready(azure) == []


def test_a_branch_and_olive_are_warned_of(azure: Workspace) -> None:
    commit = "0123456789" * 4
    lines = [
        "git+https://example.org/a@main#egg=a",
        f"git+https://example.org/b@{commit}",
        "olive-ai",
    ]
    (azure.folder / "conda.yaml").write_text(conda(*lines))
    assert unready(azure) == []
    first, second = warned(azure)
    assert f"where {lines[0]} names no commit: what it installs may change" in first
    assert "where olive-ai is Olive, which no step of drupe needs: leave it out" in second


def test_every_dead_line_of_the_pages_own_file_is_named() -> None:
    page = Path(__file__).parents[2] / "examples" / "page" / "conda.yaml"
    lines = page.read_text().splitlines()
    found = {wrong.number: wrong for wrong in faults(read(page), ["CUDAExecutionProvider"])}
    dead = ("python=3.8", "git+https", "ort-nightly")
    named = [number for number, line in enumerate(lines, 1) if line.strip(" -").startswith(dead)]
    assert sorted(found) == [0, *named]
    assert len(named) == 3
    assert found[0].what == (
        f"lacks {', '.join(each.name for each in asked_for())}, which drupe itself needs there"
    )


def test_a_lint_is_a_fault_under_strict(azure: Workspace) -> None:
    del azure.config["azureml_client"]
    with pytest.raises(ConfigError, match=r"systems\.aml: has no workspace\n  Write "):
        load(azure.write(), strict=True)
