"""The files that put taichu onto a cluster: scripts are run, the others read as their users do."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "ascend" / "deploy"
# a taichu that says with what words and libraries it was called
TAICHU = """import json, os, sys
print(json.dumps([sys.argv[1:], os.environ["LD_LIBRARY_PATH"], os.environ.get("FROM_CANN")]))"""


@pytest.fixture
def bash(tmp_path):
    """bash(script, *words, **environment) with a fake taichu on the PATH."""
    program = tmp_path / "taichu"
    program.write_text(f"#!{sys.executable}\n{TAICHU}\n")
    program.chmod(0o755)

    def run(script: str, *words: str, **environment: str):
        kept = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "MASTER_ATTEMPTS": "1"}
        command = ["bash", str(DEPLOY / script), *words]
        return subprocess.run(command, env=kept | environment, capture_output=True, text=True)

    return run


@pytest.mark.parametrize("script", sorted(DEPLOY.glob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_bash(script):
    assert subprocess.run(["bash", "-n", script], capture_output=True).stderr == b""
    assert os.access(script, os.X_OK)


def test_modelarts_tells_launch_its_place(bash):
    done = bash(
        "modelarts.sh",
        "my recipe.yaml",
        "train.steps=5",
        VC_WORKER_HOSTS="localhost,no-such-host.invalid",
        VC_TASK_INDEX="1",
        MA_NUM_HOSTS="2",
        MA_NUM_GPUS="8",
    )
    words = json.loads(done.stdout)[0]
    assert words == [
        *("launch", "my recipe.yaml", "train.steps=5", "--devices", "8"),
        *("--nodes", "2", "--node-rank", "1", "--master", "127.0.0.1"),
    ]


@pytest.mark.parametrize("environment", [{}, {"MA_NUM_GPUS": "0", "VC_WORKER_HOSTS": "127.0.0.1"}])
def test_modelarts_with_one_node(bash, environment):
    words = json.loads(bash("modelarts.sh", "a.yaml", **environment).stdout)[0]
    assert words[2:] == ["--devices", "8", "--nodes", "1", "--node-rank", "0"] + [
        *("--master", "127.0.0.1")
    ]


def test_modelarts_says_what_is_wrong(bash):
    done = bash("modelarts.sh")
    assert (done.returncode, done.stderr) == (
        2,
        "usage: modelarts.sh RECIPE.yaml [key=value ...]\n",
    )
    done = bash("modelarts.sh", "a.yaml", VC_WORKER_HOSTS="no-such-host.invalid,localhost")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == (
        "modelarts.sh: no-such-host.invalid, first of VC_WORKER_HOSTS, has no IPv4 address\n"
    )


def test_a_command_runs_in_canns_environment(bash, tmp_path):
    script = tmp_path / "set_env.sh"
    script.write_text("export FROM_CANN=yes LD_LIBRARY_PATH=/cann/lib64")
    done = bash("with_cann.sh", "taichu", "a b", ASCEND_HOME_PATH=str(tmp_path))
    words, libraries, cann = json.loads(done.stdout)
    assert (words, cann) == (["a b"], "yes")
    driver = "/usr/local/Ascend/driver/lib64"
    assert libraries.split(":") == [f"{driver}/driver", f"{driver}/common", driver, "/cann/lib64"]
    assert bash("with_cann.sh", "bash", "-c", "exit 7").returncode == 7


def test_volcano_runs_launch_on_two_nodes_of_eight():
    job = yaml.safe_load((DEPLOY / "volcano.yaml").read_text(encoding="utf-8"))
    assert (job["apiVersion"], job["kind"]) == ("batch.volcano.sh/v1alpha1", "Job")
    assert job["spec"]["schedulerName"] == "volcano"
    (task,) = job["spec"]["tasks"]
    assert job["spec"]["minAvailable"] == task["replicas"] == 2
    (container,) = task["template"]["spec"]["containers"]
    words = container["args"]
    assert words[0] == "launch" and all(isinstance(word, str) for word in words)
    options = dict(zip(words[2::2], words[3::2]))
    npus = container["resources"]["limits"]["huawei.com/Ascend910"]
    assert options == {
        "--devices": str(npus),
        "--nodes": str(task["replicas"]),
        "--node-rank": "$(VC_TASK_INDEX)",  # which the plug-in env sets
        "--master": f"{job['metadata']['name']}-{task['name']}-0.{job['metadata']['name']}",
    }
    assert {"env", "svc"} <= set(job["spec"]["plugins"])
    assert container["resources"]["requests"] == container["resources"]["limits"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in task["template"]["spec"]["volumes"]}
    chip = "ring-controller.atlas"
    assert job["metadata"]["labels"][chip] == task["template"]["metadata"]["labels"][chip]


def instructions() -> list[list[str]]:
    """The Dockerfile's instructions, each split into words."""
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [line.split() for line in "\n".join(lines).replace("\\\n", " ").splitlines()]


def test_the_image_stands_on_a_cann_image_that_can_be_chosen():
    first, second, *rest = instructions()
    assert first[0] == "ARG" and second == ["FROM", "${" + first[1].split("=")[0] + "}"]
    assert all(words[0] != "FROM" for words in rest)
    version = re.search(r":(\d+\.\d+)", first[1])[1]
    from ascend.doctor.npu import CANN_VERSIONS

    assert version in CANN_VERSIONS


def test_the_image_gets_all_that_is_installed():
    copied = [words[1:-1] for words in instructions() if words[0] == "COPY"]
    paths = {path for words in copied for path in words}
    assert all((ROOT / path).exists() for path in paths)
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    packages = re.findall(r'"(\w+)\*"', re.search(r"include = (.*)", project)[1])
    assert set(packages) | {"pyproject.toml", "setup.py", "README.md"} == paths
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert not paths & set(ignored)


def test_the_image_runs_taichu_and_not_as_root():
    last = {words[0]: words[1:] for words in instructions()}
    assert last["USER"] == ["taichu"]
    assert json.loads(" ".join(last["ENTRYPOINT"])) == ["with_cann", "taichu"]
    assert json.loads(" ".join(last["CMD"])) == ["doctor"]


def test_the_files_are_installed():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert '"deploy/*"' in project and '"cuda_home/bin/nvcc"' in project
