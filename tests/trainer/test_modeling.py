"""Models as the trainer uses them, against the plain computations of transformers and peft."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BloomConfig,
    Gemma2Config,
    GPT2Config,
    MistralConfig,
    PreTrainedModel,
    Qwen2Config,
)

from tests.tiny import make_tiny, make_tiny_reward, tiny_tokenizer
from trainer import adapters, modeling, packing, placement
from trainer.events import RunError
from trainer.types import Batch, adapted_depth

CPU = placement.Placement(torch.device("cpu"), torch.float32)
PROMPTS = [[3, 6, 7, 8, 1, 4], [3, 9, 1, 4], [3, 10, 11, 12, 13, 1, 4]]
ANSWERS = [[14, 15, 1], [16, 17, 18, 19, 1], [20, 21]]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("models"))


@pytest.fixture
def policy(base: Path) -> PreTrainedModel:
    return modeling.load_policy(base, CPU)


@pytest.fixture
def adapted(policy: PreTrainedModel) -> PreTrainedModel:
    """With an adapter that changes what the model says."""
    adapters.add_lora(policy, 4, 8.0, seed=0)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, value in adapters.adapter_parameters(policy).items():
            if "lora_B" in name:
                value.copy_(0.1 * torch.randn(value.shape, generator=generator))
    return policy


def rows_batch() -> Batch:
    return modeling.collate([(p, [a]) for p, a in zip(PROMPTS, ANSWERS, strict=True)], pad=0)


def plain_logprobs(model: PreTrainedModel, prompt: list[int], answer: list[int]) -> Tensor:
    """Alone, without padding, through the model's own forward pass."""
    logits = model(input_ids=torch.tensor([prompt + answer])).logits[0].float()
    logprobs = logits.log_softmax(-1)[len(prompt) - 1 : -1]
    return logprobs.gather(1, torch.tensor(answer)[:, None])[:, 0]


def test_log_probabilities_are_those_of_the_plain_model(policy: PreTrainedModel) -> None:
    found, entropy = modeling.response_logprobs(policy, rows_batch(), 1.0, with_entropy=True)
    for row, (prompt, answer) in enumerate(zip(PROMPTS, ANSWERS, strict=True)):
        wanted = plain_logprobs(policy, prompt, answer)
        torch.testing.assert_close(found[row, : len(answer)], wanted, rtol=1e-4, atol=1e-5)
        assert not found[row, len(answer) :].any()
        assert not entropy[row, len(answer) :].any()


def test_padding_changes_nothing(policy: PreTrainedModel) -> None:
    alone, _ = modeling.response_logprobs(
        policy, modeling.collate([(PROMPTS[1], [ANSWERS[0]])], pad=0), 1.0
    )
    rows = [(PROMPTS[1], [ANSWERS[0]]), (PROMPTS[2] * 4, [ANSWERS[1] * 3])]
    padded, _ = modeling.response_logprobs(policy, modeling.collate(rows, pad=0), 1.0)
    torch.testing.assert_close(padded[0, :3], alone[0, :3], rtol=1e-4, atol=1e-5)


def test_answers_behind_one_prompt_are_as_if_alone(policy: PreTrainedModel) -> None:
    together, _ = modeling.response_logprobs(
        policy, modeling.collate([(PROMPTS[0], ANSWERS), (PROMPTS[1], ANSWERS[:1])], pad=0), 1.0
    )
    for row, answer in enumerate(ANSWERS):
        wanted = plain_logprobs(policy, PROMPTS[0], answer)
        torch.testing.assert_close(together[row, : len(answer)], wanted, rtol=1e-4, atol=1e-5)
    assert modeling.shares_prompts(policy, PROMPTS[0], pad=0)


def test_the_temperature_divides_the_logits(policy: PreTrainedModel) -> None:
    batch = modeling.collate([(PROMPTS[0], [ANSWERS[0]])], pad=0)
    found, _ = modeling.response_logprobs(policy, batch, 0.5)
    logits = policy(input_ids=torch.tensor([PROMPTS[0] + ANSWERS[0]])).logits[0, 5:8]
    wanted = (logits / 0.5).log_softmax(-1).gather(1, torch.tensor(ANSWERS[0])[:, None])[:, 0]
    torch.testing.assert_close(found[0], wanted, rtol=1e-4, atol=1e-5)


def test_a_new_adapter_changes_nothing_and_the_reference_is_the_base(
    policy: PreTrainedModel, base: Path
) -> None:
    adapters.add_lora(policy, 4, 8.0, seed=0)
    batch = rows_batch()
    with torch.no_grad():
        own, _ = modeling.response_logprobs(policy, batch, 1.0)
        with adapters.reference(policy):
            reference, _ = modeling.response_logprobs(policy, batch, 1.0)
    assert torch.equal(own, reference)
    plain, _ = modeling.response_logprobs(modeling.load_policy(base, CPU), batch, 1.0)
    torch.testing.assert_close(reference, plain, rtol=1e-5, atol=1e-6)


def test_the_reference_leaves_the_adapter_trainable(adapted: PreTrainedModel) -> None:
    with adapters.reference(adapted):
        assert all(value.requires_grad for value in adapters.adapter_parameters(adapted).values())
    assert all(value.requires_grad for value in adapters.adapter_parameters(adapted).values())


def test_every_adapter_weight_moves_and_no_base_weight_does(adapted: PreTrainedModel) -> None:
    before = {name: value.detach().clone() for name, value in adapted.named_parameters()}
    adapter = adapters.adapter_parameters(adapted)
    optimizer = torch.optim.Adam(adapter.values(), lr=1e-2)
    logprob, _ = modeling.response_logprobs(adapted, rows_batch(), 1.0)
    logprob.sum().backward()
    optimizer.step()
    # 2 layers of 7 linear layers, A and B each
    assert len(adapter) == 28
    for name, value in adapted.named_parameters():
        assert torch.equal(value, before[name]) != (name in adapter), name


def test_gradients_are_those_of_the_plain_adapter_of_peft(adapted: PreTrainedModel) -> None:
    logprob, _ = modeling.response_logprobs(adapted, rows_batch(), 1.0)
    logprob.sum().backward()
    adapter = adapters.adapter_parameters(adapted)
    lean = {name: value.grad.clone() for name, value in adapter.items()}
    for layer in adapters.lora_layers(adapted).values():
        layer.__class__ = adapters.LoraLinear
    adapted.set_attn_implementation("eager")
    adapted.zero_grad()
    total = sum(
        plain_logprobs(adapted, prompt, answer).sum()
        for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)
    )
    assert isinstance(total, Tensor)
    total.backward()
    for name, value in adapter.items():
        torch.testing.assert_close(lean[name], value.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_logits_equal_unpacked(base: Path, dtype: torch.dtype) -> None:
    model = modeling.load_policy(base, placement.Placement(CPU.device, dtype))
    ids = torch.tensor([PROMPTS[2]])
    own = model(input_ids=ids).logits
    layers = [module for module in model.modules() if type(module) is nn.Linear]
    with packing.packed(model) as quick:
        assert not [module for module in quick.modules() if type(module) is nn.Linear]
        found = quick(input_ids=ids).logits
    slack = 1e-4 if dtype == torch.float32 else 0.1
    torch.testing.assert_close(found, own, rtol=slack, atol=slack)
    assert [module for module in model.modules() if type(module) is nn.Linear] == layers
    assert torch.equal(model(input_ids=ids).logits, own)


def test_packed_merges_the_adapter(adapted: PreTrainedModel) -> None:
    ids = torch.tensor([PROMPTS[2]])
    own = adapted(input_ids=ids).logits
    with packing.packed(adapted) as quick:
        torch.testing.assert_close(quick(input_ids=ids).logits, own, rtol=1e-4, atol=1e-4)
    with adapters.reference(adapted):
        assert not torch.allclose(adapted(input_ids=ids).logits, own, atol=1e-3)


# peft asks transformers for a property under its old name
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_the_saved_model_loads_without_us_and_says_the_same(
    adapted: PreTrainedModel, base: Path, tmp_path: Path
) -> None:
    ids = torch.tensor([PROMPTS[2]])
    own = adapted(input_ids=ids).logits
    adapters.save_merged(adapted, tiny_tokenizer(), tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(str(tmp_path / "merged"))
    torch.testing.assert_close(merged(input_ids=ids).logits, own, rtol=1e-4, atol=1e-4)
    assert AutoTokenizer.from_pretrained(str(tmp_path / "merged")).chat_template
    adapters.save_adapter(adapted, tmp_path / "adapter", "tiny")
    plain = AutoModelForCausalLM.from_pretrained(str(base))
    again = PeftModel.from_pretrained(plain, str(tmp_path / "adapter"))
    torch.testing.assert_close(again(input_ids=ids).logits, own, rtol=1e-4, atol=1e-4)


def test_layers_below_the_adapter_run_once_and_change_nothing(policy: PreTrainedModel) -> None:
    targets = adapters.linear_names(policy, depth=1)
    assert len(targets) == 7
    adapters.add_lora(policy, 4, 8.0, seed=0, targets=targets)
    assert modeling.splits(policy, PROMPTS[0], pad=0, depth=1)
    batch = rows_batch()
    whole, _ = modeling.response_logprobs(policy, batch, 1.0)
    quick = modeling.with_lower(policy, batch, 1)
    policy.model.layers[0].mlp.down_proj.weight.zero_()  # would be seen if it ran again
    halves, _ = modeling.response_logprobs(policy, quick, 1.0)
    assert torch.equal(whole, halves)
    halves.sum().backward()
    assert all(value.grad is not None for value in adapters.adapter_parameters(policy).values())


def test_padding_is_seen_by_nobody() -> None:
    """A decoder would not notice: its padding stands in the future. An encoder reads both ways."""
    segments = torch.tensor([[0, 1, -1], [0, 1, 1]])
    assert modeling.attention_mask(segments, torch.float32).tolist() == [[1, 1, 0], [1, 1, 1]]
    together = modeling.attention_mask(torch.tensor([[0, 1, 2, -1]]), torch.float32)
    # each sees the prompt (0) and itself; padding sees itself, so that no row is empty
    assert (together[0, 0] == 0).tolist() == [
        [True, False, False, False],
        [True, True, False, False],
        [True, False, True, False],
        [True, False, False, True],
    ]


def test_judged_text_ends_with_exactly_one_end() -> None:
    assert modeling.judged_ids([5], [7, 8], eos=1) == [5, 7, 8, 1]
    assert modeling.judged_ids([5], [7, 1], eos=1) == [5, 7, 1]
    assert modeling.judged_ids([5], [], eos=1) == [5, 1]


def test_a_prompt_goes_through_the_chat_template() -> None:
    tokenizer = tiny_tokenizer()
    messages = [{"role": "user", "content": "good tea"}]
    words = tokenizer.convert_ids_to_tokens(modeling.chat_ids(tokenizer, messages))
    assert words == ["<user>", "good", "tea", "<end>", "<assistant>"]


def test_a_tokenizer_without_template_gets_roles_and_an_open_answer() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    found = modeling.chat_ids(tokenizer, [{"role": "user", "content": "tea"}])
    assert found == tokenizer("user: tea\n\nassistant:")["input_ids"]


def test_the_number_of_weights_is_read_from_headers(base: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(str(base))
    assert placement.parameter_count(base) == sum(value.numel() for value in model.parameters())


def test_a_folder_without_config_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"is no model folder \(it has no config.json\)"):
        modeling.load_policy(tmp_path, CPU)


def test_pickled_weights_are_refused(base: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((base / "config.json").read_text())
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(RunError, match="no safetensors weights; other formats can run code"):
        modeling.load_policy(tmp_path, CPU)


def test_a_model_that_brings_its_own_code_is_refused(tmp_path: Path) -> None:
    path = make_tiny(tmp_path)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "x.Y"}}))
    with pytest.raises(RunError, match="asks to run code of its own"):
        modeling.load_policy(path, CPU)


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    path = make_tiny(tmp_path)
    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(RunError, match=r"cannot be loaded .* restore or replace it"):
        modeling.load_policy(path, CPU)


def test_a_policy_is_no_reward_model(base: Path) -> None:
    with pytest.raises(RunError, match=r"is no reward model: it has no score.weight"):
        modeling.load_reward(base, CPU)


def test_a_reward_model_is_no_policy(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is no whole language model"):
        modeling.load_policy(make_tiny_reward(tmp_path), CPU)


def test_padding_with_the_end_token_is_refused(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(str(tmp_path))
    with pytest.raises(RunError, match="pads with its end-of-text token"):
        modeling.load_tokenizer(tmp_path)


def test_an_unknown_device_is_one_sentence() -> None:
    with pytest.raises(RunError, match=r"config.device is “toaster”"):
        placement.choose_device("toaster")


def test_a_deep_model_is_adapted_in_its_top_third() -> None:
    assert adapted_depth(8, 0) == 0
    assert adapted_depth(9, 0) == 6
    assert adapted_depth(30, 0) == 20
    assert adapted_depth(30, 4) == 26
    assert adapted_depth(30, 99) == 0


def _reward_on(base: Path, folder: Path) -> Path:
    """A reward model whose layers are those of the policy, but for the top one."""
    model = AutoModelForSequenceClassification.from_pretrained(str(base), num_labels=1)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight.mul_(1.5)
    model.save_pretrained(str(folder))
    return folder


def test_a_reward_model_with_the_same_lower_layers_shares_them(
    policy: PreTrainedModel, base: Path, tmp_path: Path
) -> None:
    reward = modeling.load_reward(_reward_on(base, tmp_path / "reward"), CPU)
    batch = rows_batch()
    alone = modeling.hidden_states(reward, batch)
    assert modeling.share_lower(policy, reward, depth=1, pad=0)
    assert reward.model.layers[0] is policy.model.layers[0]
    assert reward.model.layers[1] is not policy.model.layers[1]
    shared = modeling.hidden_states(reward, modeling.with_lower(policy, batch, 1))
    assert torch.equal(shared, alone)


def test_nothing_is_shared_where_a_lower_weight_differs(
    policy: PreTrainedModel, base: Path, tmp_path: Path
) -> None:
    reward = modeling.load_reward(_reward_on(base, tmp_path / "reward"), CPU)
    assert not modeling.share_lower(policy, reward, depth=0, pad=0)
    assert not modeling.share_lower(policy, reward, depth=2, pad=0)
    reward.model.embed_tokens.weight.data[20] += 0.01
    assert not modeling.share_lower(policy, reward, depth=1, pad=0)
    assert reward.model.layers[0] is not policy.model.layers[0]


SHAPE: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1,
}  # fmt: skip
FAMILIES = {
    "qwen2: biases": lambda: Qwen2Config(**SHAPE, **WORDS_OF_OURS),
    "gemma2: soft caps, norms of its own": lambda: Gemma2Config(
        **SHAPE, **WORDS_OF_OURS, head_dim=16
    ),
    "gpt2: transposed layers, learnt positions": lambda: GPT2Config(
        n_embd=32, n_layer=2, n_head=2, **WORDS_OF_OURS
    ),
    "mistral: a sliding window": lambda: MistralConfig(**SHAPE, **WORDS_OF_OURS, sliding_window=8),
    "bloom: positions in the attention": lambda: BloomConfig(
        hidden_size=32, n_layer=2, n_head=2, **WORDS_OF_OURS
    ),
}
WORDS_OF_OURS: dict[str, Any] = {
    "vocab_size": 48, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None,
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_other_architectures_are_computed_as_they_are(family: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain = AutoModelForCausalLM.from_config(FAMILIES[family]()).eval()
    for value in plain.parameters():
        torch.nn.init.normal_(value, std=0.3)
    plain.save_pretrained(str(tmp_path))
    model = modeling.load_policy(tmp_path, CPU)
    adapters.add_lora(model, 4, 8.0, 0, adapters.linear_names(model, depth=1))
    packs = modeling.shares_prompts(model, PROMPTS[0], pad=0, longest=11)
    assert packs == (not family.startswith(("mistral", "bloom")))
    rows = [(PROMPTS[0], ANSWERS)] if packs else [(PROMPTS[0], [answer]) for answer in ANSWERS]
    batch = modeling.collate(rows, pad=0)
    assert modeling.splits(model, PROMPTS[0], pad=0, depth=1)
    found, _ = modeling.response_logprobs(model, modeling.with_lower(model, batch, 1), 1.0)
    for row, answer in enumerate(ANSWERS):
        wanted = plain_logprobs(plain, PROMPTS[0], answer)
        torch.testing.assert_close(found[row, : len(answer)], wanted, rtol=1e-3, atol=1e-4)
    found.sum().backward()
    adapter = adapters.adapter_parameters(model)
    assert all(value.grad is not None for value in adapter.values())
    with torch.no_grad():
        for name, value in adapter.items():
            value += 0.1 if "lora_B" in name else 0.0
    ids = torch.tensor([PROMPTS[0]])
    own = model(input_ids=ids).logits
    with packing.packed(model) as quick:
        torch.testing.assert_close(quick(input_ids=ids).logits, own, rtol=1e-3, atol=1e-3)
    plain.load_state_dict(adapters.merged_state(model), strict=False)
    torch.testing.assert_close(plain(input_ids=ids).logits, own, rtol=1e-3, atol=1e-3)


def test_a_trial_meets_each_kind_of_layer_and_puts_the_rest_back(policy: PreTrainedModel) -> None:
    sliding_and_full = AutoModelForCausalLM.from_config(
        Gemma2Config(**SHAPE | {"num_hidden_layers": 6}, **WORDS_OF_OURS, head_dim=16)
    )
    for model, kinds in ((policy, 1), (sliding_and_full, 2)):
        whole = model.model.layers
        with contextlib.suppress(RuntimeError), modeling.first_of_each_kind(model):
            assert list(model.model.layers) == list(whole)[:kinds]
            raise RuntimeError
        assert model.model.layers is whole


def test_a_last_layer_of_another_make_is_tried_too(policy: PreTrainedModel) -> None:
    policy.model.layers[-1].mlp = nn.Identity()
    with modeling.first_of_each_kind(policy):
        assert len(policy.model.layers) == policy.config.num_hidden_layers == 2


@pytest.mark.parametrize(
    ("able", "quick"),
    [
        ({"amx_bf16": True, "avx512_bf16": True, "cpu_name": "Intel Xeon"}, True),
        ({"amx_bf16": False, "avx512_bf16": True, "cpu_name": "Intel Xeon"}, False),
        ({"amx_bf16": False, "avx512_bf16": True, "cpu_name": "AMD EPYC 9B14"}, True),
        ({"avx512_bf16": False, "cpu_name": "AMD EPYC"}, False),
        ({"architecture": "aarch64"}, False),
    ],
)
def test_bfloat16_is_for_processors_that_are_quick_at_it(
    able: dict[str, Any], quick: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    some = placement.SMALL_MODEL + 1
    chosen = torch.bfloat16 if quick else torch.float32
    assert placement.choose_dtype("auto", cpu, some) is chosen
    assert placement.choose_dtype("auto", cpu, 1000) is torch.float32
    assert placement.choose_dtype("bfloat16", cpu, 1000) is torch.bfloat16
    assert placement.choose_dtype("auto", cuda, 1000) is torch.bfloat16
