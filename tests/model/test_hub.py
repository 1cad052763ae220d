"""Models of the Hugging Face hub are found in the local cache, and downloaded only where the settings allow it."""

import json
import os
import shutil
import subprocess
import sys

import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.utils import filter_repo_objects

from codots.learner.config import LearnerConfig
from codots.model.adapter import Adapted
from codots.model.hub import FILES, OTHERS
from codots.model.load import check_files, identity, load_model, model_folder
from codots.training.setup import engine_plan, profile_of
from codots.training.train import train
from tests.evaluating import measured
from tests.random_model import make_random_model
from tests.training.small import recipe

OLD, NEW = "a" * 40, "b" * 40
NAME = "org/tiny-model"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return make_random_model(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def put(cache, name, folder, commit=NEW, only=None):
    """Write the files of a folder into a cache, laid out as the hub's own client does."""
    home = cache / f"models--{name.replace('/', '--')}"
    snapshot = home / "snapshots" / commit
    for part in (home / "blobs", home / "refs", snapshot):
        part.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if only is None or path.name in only:
            blob = shutil.copy(path, home / "blobs" / f"{commit[0]}-{path.name}")
            (snapshot / path.name).symlink_to(os.path.relpath(blob, snapshot))
    (home / "refs" / "main").write_text(commit)
    return snapshot


def assert_refused(line, call):
    with pytest.raises(ValueError, match=line) as error:
        call()
    assert len(str(error.value).splitlines()) == 1


def test_a_hub_id_is_its_snapshot_in_the_cache(cache, whole):
    snapshot = put(cache, NAME, whole)
    assert model_folder(NAME) == snapshot
    assert identity(snapshot) == identity(whole)
    check_files(snapshot)
    assert load_model(snapshot)[0].num_parameters() == load_model(whole)[0].num_parameters()


def test_a_revision_is_a_commit_or_a_name(cache, whole):
    old, new = put(cache, NAME, whole, OLD), put(cache, NAME, whole, NEW)
    assert (model_folder(NAME), model_folder(f"{NAME}@{OLD}")) == (new, old)
    (cache / "models--org--tiny-model" / "refs" / "v1.0").write_text(OLD)
    assert model_folder(f"{NAME}@v1.0") == old


def test_a_git_lfs_pointer_behind_a_link_is_named(cache, whole):
    snapshot = put(cache, NAME, whole)
    (snapshot / "tokenizer.json").resolve().write_text("version https://git-lfs.github.com/spec/v1\n")
    assert_refused(r"tokenizer\.json is a Git LFS pointer", lambda: load_model(model_folder(NAME)))


def test_a_hub_id_is_evaluated_and_trained_and_is_a_reference(cache, whole, tmp_path):
    snapshot = put(cache, NAME, whole)
    assert measured(NAME, preset="tiny", packs=2, pack_size=2, workers=1, arms=["null"]).model == NAME
    learner = {"warmup_steps": 0, "kl_coef": 0.01, "reference": f"{NAME}@{NEW}"}
    config = recipe(NAME, tmp_path / "run", steps=1, eval_every=0, learner=learner)
    assert engine_plan(config, snapshot, profile_of(config, snapshot)).reference == snapshot
    (report,) = train(config)
    assert report.metrics["train/ref_kl"] < 1e-6


def test_the_base_of_an_adapter_may_be_on_the_hub(cache, whole, tmp_path):
    snapshot = put(cache, NAME, whole)
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": NAME}))
    (tmp_path / "adapter" / "adapter_model.safetensors").touch()
    assert model_folder(tmp_path / "adapter") == Adapted(tmp_path / "adapter", snapshot)
    put(cache, "org/adapter", tmp_path / "adapter")
    assert model_folder("org/adapter").base == snapshot


def test_resuming_lora_on_another_snapshot_is_refused(cache, whole, tmp_path):
    put(cache, NAME, whole, OLD)
    learner = LearnerConfig(warmup_steps=0, lora={"rank": 2, "alpha": 4}).model_dump()
    config = recipe(NAME, tmp_path / "run", steps=2, eval_every=0, learner=learner)
    list(train(config))
    other = make_random_model(tmp_path / "other", seed=1)
    put(cache, NAME, other, NEW)
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-000002")
    with pytest.raises(ValueError, match="was trained on another base model; expected the same, unchanged `model`"):
        list(train(config, resume=True))


@pytest.mark.parametrize("only", [(), ("config.json", "tokenizer.json")])
def test_offline_an_incomplete_model_is_a_one_line_error_that_says_how_to_get_it(cache, whole, only):
    put(cache, NAME, whole, only=only)
    line = rf"no model at '{NAME}': .*{cache}.* HF_HUB_OFFLINE is set; expected .* `hf download {NAME}` first"
    assert_refused(line, lambda: model_folder(NAME))


def test_a_shard_that_is_missing_makes_a_model_incomplete(cache, whole):
    snapshot = put(cache, NAME, whole)
    index = {"weight_map": {"one": "model.safetensors", "two": "model-00002-of-00002.safetensors"}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    assert_refused("does not have all of its files", lambda: model_folder(NAME))
    (snapshot / "model-00002-of-00002.safetensors").touch()
    assert model_folder(NAME) == snapshot


def test_a_model_that_is_not_cached_is_downloaded_after_a_line_that_says_so(cache, whole, caplog, monkeypatch):
    calls = []

    def download(id, *, local_files_only, **how):
        calls.append((id, local_files_only, how))
        if local_files_only:
            raise FileNotFoundError("not cached")
        assert [record.message for record in caplog.records] == [
            f"downloading {NAME}@v1 from {constants.ENDPOINT} into {cache}"
        ]
        return str(put(cache, NAME, whole))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert identity(model_folder(f"{NAME}@v1")) == identity(whole)
    assert [(id, local, how["revision"]) for id, local, how in calls] == [(NAME, True, "v1"), (NAME, False, "v1")]

    def refuse(id, **how):
        raise OSError("\n401 Client Error.\n\nAccess is restricted.")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    assert_refused("cannot be downloaded: 401 Client Error.$", lambda: model_folder(f"{NAME}@v1"))


def test_only_files_that_are_read_are_downloaded():
    read = ["config.json", "model-00001-of-00002.safetensors", "model.safetensors.index.json", "tokenizer.model"]
    read += ["chat_template.jinja", "merges.txt", "codots.json", "adapter_config.json", "adapter_model.safetensors"]
    others = ["pytorch_model.bin", "original/params.json", "onnx/model.onnx", "consolidated.safetensors", "a/b.json"]
    found = filter_repo_objects([*read, *others], allow_patterns=FILES, ignore_patterns=OTHERS)
    assert sorted(found) == sorted(read)


def test_a_mistyped_path_is_not_looked_up_on_the_network(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", None)
    assert_refused("no model at 'runs/mime'; .*nearest is 'runs/mine'", lambda: model_folder("runs/mime"))
    monkeypatch.chdir(tmp_path / "runs")
    for name in ("runs/untrained", "models/smollm2", "nowhere", "./org/name", "../org/name", "/org/name", "a/b/c"):
        with pytest.raises(ValueError, match="expected a Hugging Face folder on this machine, org/name on the hub"):
            model_folder(name)


@pytest.mark.parametrize(
    "command",
    [["doctor", "recipe.yaml"], pytest.param(["estimate", "recipe.yaml", "--memory", "24"], marks=pytest.mark.slow)],
)
def test_the_commands_find_the_cache_of_the_environment(tmp_path, whole, command):
    put(tmp_path / "home" / "hub", NAME, whole)
    (tmp_path / "recipe.yaml").write_text(f"model: {NAME}\nrun: {tmp_path}/run\npreset: tiny\nworkers: 1\nsteps: 1\n")
    done = subprocess.run(
        [sys.executable, "-m", "codots", *command],
        cwd=tmp_path,
        env=with_home(tmp_path / "home"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_commands_name_a_model_that_the_cache_lacks(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "codots", "play", "frozen-lake-v1", "--preset", "tiny", "--model", "org/none"],
        env=with_home(tmp_path),
        capture_output=True,
        text=True,
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "`hf download org/none` first" in done.stderr


def with_home(folder):
    """Return an environment whose hub cache is below this folder."""
    environment = os.environ | {"HF_HOME": str(folder), "HF_HUB_OFFLINE": "1"}
    return {key: value for key, value in environment.items() if key != "HF_HUB_CACHE"}
