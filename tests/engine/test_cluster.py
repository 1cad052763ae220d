"""A missing package and a wrong address of a cluster are one line, before anything starts."""

import importlib.util
import socket

import pytest

from codots.engine.cluster import check_answers


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_missing_ray_is_one_line_that_names_the_extra(codots, monkeypatch, tmp_path, dry_run):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ray" else find(name))
    (tmp_path / "recipe.yaml").write_text("engine: ray")
    options = ["--dry-run"] if dry_run else []
    ended = codots("train", tmp_path / "recipe.yaml", f"run={tmp_path / 'run'}", *options)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.splitlines()[-1] == "codots: engine.kind=ray needs Ray: pip install 'codots[ray]'"
    assert not (tmp_path / "run").exists()


def test_an_address_that_does_not_answer_is_one_line():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(
            ValueError, match=rf"no Ray cluster answers at RAY_ADDRESS={address} \(.*refused\); expected"
        ):
            check_answers(address)
    with pytest.raises(
        ValueError, match=r"RAY_ADDRESS is 'here'; expected HOST:PORT, such as 10\.0\.0\.1:6379, or auto"
    ):
        check_answers("here")
