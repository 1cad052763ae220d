"""Multimodal models are language models of their text part; what is no causal LM is refused in one line."""

import json

import pytest
import torch
import transformers
from benchmarks.architectures import make_config, make_model
from safetensors.torch import load_file

from codots import register
from codots.config.schema import TrainConfig
from codots.learner.config import ALL_LINEAR
from codots.learner.lora import target_layers
from codots.model.load import load_model
from codots.preflight.estimate import estimate
from codots.rollout.profile import Profile
from codots.training.train import train
from tests.qwen import VOCABULARY, make_qwen_tokenizer
from tests.toy import Talk

WHOLE = {
    "qwen3_5": "Qwen3_5ForConditionalGeneration",
    "gemma3": "Gemma3ForConditionalGeneration",
    "llama4": "Llama4ForConditionalGeneration",
    "mistral3": "Mistral3ForConditionalGeneration",
    "qwen3_vl": "Qwen3VLForConditionalGeneration",
}
LENGTHS = {
    "mpt": {"max_seq_len": 2048},
    "gptj": {"max_position_embeddings": 2048},
    "falcon": {"max_position_embeddings": 2048},
    "gemma2": {"max_position_embeddings": 2048},
}
SIZES = {"vocab_size": VOCABULARY, "hidden_size": 16}


def save(model, folder, positions=2048):
    model.save_pretrained(folder)
    make_qwen_tokenizer().save_pretrained(folder)
    Profile("natural", 4, 5, 100, max_model_len=positions).save(folder)
    return folder


def whole(name, folder, **changes):
    """Write a multimodal model with its part for images, as it is downloaded, and return it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vision = {"out_hidden_size": 16} if "qwen3" in name else {}
        config = make_config(name, **SIZES, max_position_embeddings=2048, **changes)
        for key, value in vision.items():
            setattr(config.vision_config, key, value)
        model = getattr(transformers, WHOLE[name])(config).eval()
    save(model, folder)
    return model


@pytest.mark.parametrize("name", WHOLE)
def test_a_multimodal_model_gives_its_own_logits_for_text(name, tmp_path):
    own, ids = whole(name, tmp_path), torch.arange(3, 20)[None]
    model, _ = load_model(tmp_path)
    with torch.no_grad():
        assert torch.allclose(model(input_ids=ids).logits, own(input_ids=ids).logits, atol=1e-4)
    frozen = {name for name, weight in model.named_parameters() if not weight.requires_grad}
    assert all("vision" in name or "visual" in name or "projector" in name for name in frozen)
    assert bool(frozen) == (name in ("gemma3", "mistral3", "qwen3_vl"))
    adapted = target_layers(model, [ALL_LINEAR])
    assert adapted
    assert not any("vision" in name or "visual" in name or "projector" in name for name in adapted)


@pytest.fixture
def recipe(registry, tmp_path):
    register(Talk())

    def make(**changes):
        keys = {"model": str(tmp_path / "model"), "run": str(tmp_path / "run"), "steps": 1, "workers": 1}
        size = {"packs_per_step": 2, "group_size": 2, "pack_size": 2, "eval_every": 0, "loggers": []}
        how = {"domain": "talk-v0", "preset": "few", "credit": {"preset": "paper"}, "max_logprob_gap": 1e-4}
        return TrainConfig.model_validate(keys | size | how | changes)

    return make


@pytest.mark.parametrize("lora", [None, {}])
def test_training_changes_only_the_text_part(lora, recipe, tmp_path):
    whole("gemma3", tmp_path / "model")
    learner = {"lr": 1e-2, "warmup_steps": 0, "weight_decay": 0.1, "lora": lora}
    (report,) = train(recipe(learner=learner))
    assert report.metrics["train/grad_norm"] > 0
    before, after = (load_file(tmp_path / folder / "model.safetensors") for folder in ("model", "run/model"))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all("language_model" in name for name in changed)


@pytest.mark.parametrize("name", ["bloom", "mpt", "falcon"])
def test_models_whose_configs_lack_common_keys_train_with_lora(name, recipe, tmp_path):
    save(make_model(name, vocab_size=VOCABULARY, **LENGTHS.get(name, {})), tmp_path / "model", 1024)
    (report,) = train(recipe(learner={"lr": 1e-2, "warmup_steps": 0, "lora": {}}))
    assert report.metrics["train/grad_norm"] > 0


@pytest.mark.parametrize("name", ["gemma3", "qwen3_5", "bloom", "mpt", "gemma2", "gptj"])
def test_multimodal_and_slower_models_are_estimated(name, recipe, tmp_path):
    if name in WHOLE:
        whole(name, tmp_path / "model")
    else:
        save(make_model(name, vocab_size=VOCABULARY, **LENGTHS.get(name, {})), tmp_path / "model")
    found = estimate(recipe(profile={"max_model_len": 1024}), 24.0)
    assert found.fits
    weights = sum(weight.numel() for weight in load_model(tmp_path / "model")[0].parameters())
    assert found.parts["weights"] == pytest.approx(1.15 * 2 * weights, rel=0.1)
    assert found.parts["passes"] > 0


def assert_refused(folder, line):
    with pytest.raises(ValueError, match=line) as error:
        load_model(folder)
    assert len(str(error.value).splitlines()) == 1
    assert str(error.value).startswith(f"{folder} cannot be loaded: ")


def test_what_is_no_causal_model_is_refused_with_what_it_is(tmp_path):
    tiny = {"vocab_size": 97, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    t5 = transformers.T5Config(vocab_size=97, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    bert = transformers.BertConfig(**tiny, intermediate_size=8)
    for model, line in (
        (transformers.T5ForConditionalGeneration(t5), "t5 is an encoder-decoder; expected a causal LM"),
        (transformers.BertForMaskedLM(bert), "BertForMaskedLM is an encoder, which does not generate text"),
        (
            transformers.ViTModel(transformers.ViTConfig(**{**tiny, "intermediate_size": 8, "image_size": 28})),
            "transformers has no causal LM for model type 'vit'",
        ),
    ):
        folder = save(model, tmp_path / line[:4].strip())
        assert_refused(folder, line)


def test_code_of_a_model_is_never_run(tmp_path):
    save(make_model("llama"), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    new = config | {"model_type": "novel"}
    (tmp_path / "config.json").write_text(json.dumps(new))
    assert_refused(tmp_path, r"transformers [\d.]+ does not know model type 'novel'; a later may")
    (tmp_path / "modeling_novel.py").write_text("raise SystemExit('run')")
    code = {"auto_map": {"AutoConfig": "modeling_novel.Config", "AutoModelForCausalLM": "modeling_novel.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(new | code))
    assert_refused(tmp_path, "model type 'novel' brings code of its own .auto_map in config.json., which is never run")
    (tmp_path / "config.json").write_text(json.dumps(config | code))
    model, _ = load_and_ignore_the_vocabulary(tmp_path)
    assert type(model).__name__ == "LlamaForCausalLM"


def load_and_ignore_the_vocabulary(folder):
    config = json.loads((folder / "config.json").read_text())
    make_model("llama", vocab_size=VOCABULARY).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": VOCABULARY}))
    return load_model(folder)
