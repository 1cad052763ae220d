"""The device is the faster one, or the one named; an unavailable device is a one-line error."""

import pytest
import torch

from codots.model import device
from codots.model.device import Place, check_device, count_weights, place
from codots.model.load import load_model
from tests.random_model import make_random_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_random_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def gpu(monkeypatch):
    """Let torch report a machine with one GPU, which is not used."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)


def test_weights_are_counted_without_reading_them(folder):
    model, _ = load_model(folder)
    assert count_weights(folder) == sum(parameter.numel() for parameter in model.parameters())


def test_a_machine_without_a_gpu_uses_the_cpu(folder, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert place(folder) == Place("cpu", "float32")
    with pytest.raises(ValueError, match=r"device 'cuda' is not available, .*; expected 'cpu'"):
        place(folder, "cuda")


def test_a_gpu_is_used_for_large_models_or_if_named(folder, gpu, monkeypatch):
    assert place(folder) == Place("cpu", "float32")
    assert place(folder, "cuda") == Place("cuda", "bfloat16")
    assert place(folder, "cuda:0", "float32") == Place("cuda:0", "float32")
    monkeypatch.setattr(device, "LARGE", 1)
    assert place(folder) == Place("cuda", "bfloat16")
    with pytest.raises(ValueError, match="device 'cuda:3' is not available; expected a number below 1"):
        place(folder, "cuda:3")


def test_a_gpu_without_bfloat16_uses_float32(folder, gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    assert place(folder, "cuda").dtype == "float32"


@pytest.mark.parametrize(
    ("flags", "large", "dtype"),
    [
        ({"amx_bf16": True}, 1, "bfloat16"),
        ({"avx512_bf16": True}, 1, "bfloat16"),
        ({"avx512_bf16": True}, 10**9, "float32"),
        ({"avx512_f": True, "amx_bf16": False}, 1, "float32"),
    ],
)
def test_a_cpu_computes_large_models_in_bfloat16_if_it_has_instructions_for_it(
    folder, flags, large, dtype, monkeypatch
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: flags, raising=False)
    monkeypatch.setattr(device, "LARGE_ON_CPU", large)
    assert place(folder) == Place("cpu", dtype)
    assert place(folder, dtype="float32") == Place("cpu", "float32")


def test_the_error_for_an_unknown_device_has_the_nearest():
    with pytest.raises(ValueError, match=r"unknown device 'cdua'.*'cuda'"):
        check_device("cdua")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_is_loaded_in_the_given_dtype(folder, dtype):
    model, _ = load_model(folder, Place("cpu", dtype))
    assert {parameter.dtype for parameter in model.parameters()} == {getattr(torch, dtype)}
