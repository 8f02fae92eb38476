"""Engines: the loop of our own, and vLLM by the shape of what it is asked and what it gives.

vLLM itself is not installed here (it wants a GPU); a stand-in has its documented signatures and
answers with the model that it was given, so that what comes back can be compared.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from tests.tiny import make_tiny, tiny_tokenizer, write_prompts
from tests.trainer.judging import make_run, read_lines, run_here
from trainer import adapters, engines, modeling, placement
from trainer.events import RunError
from trainer.types import Sampling

CPU = placement.Placement(torch.device("cpu"), torch.float32)
PROMPTS = [[3, 6, 7, 8, 1, 4], [3, 9, 1, 4]]
SEEDS = [[11, 12], [13]]


@dataclass(kw_only=True)
class SamplingParams:
    """vLLM's, as far as it is used; an argument that it does not have is refused."""

    n: int = 1
    seed: int | None = None
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    max_tokens: int | None = 16
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    logprobs: int | None = None
    detokenize: bool = True


class LLM:
    """vLLM's: takes the likeliest token, whatever the temperature, and ends at a stop token."""

    made: list[LLM] = []

    def __init__(
        self,
        model: str,
        *,
        dtype: str = "auto",
        seed: int = 0,
        trust_remote_code: bool = False,
        gpu_memory_utilization: float = 0.9,
        max_model_len: int | None = None,
        generation_config: str = "auto",
        logprobs_mode: str = "raw_logprobs",
    ) -> None:
        self.settings = dict(locals())
        self.network = AutoModelForCausalLM.from_pretrained(model)
        self.network.load_weights = self.load_weights
        self.asked: list[SamplingParams] = []
        self.resets = 0
        LLM.made.append(self)

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        state = dict(weights)
        self.network.load_state_dict(state)
        return set(state)

    def apply_model(self, func: Callable[[Any], Any]) -> list[Any]:
        return [func(self.network)]

    def reset_prefix_cache(self) -> None:
        self.resets += 1

    def generate(
        self,
        prompts: list[dict[str, list[int]]],
        sampling_params: list[SamplingParams],
        *,
        use_tqdm: bool = True,
    ) -> list[Any]:
        assert not use_tqdm
        assert len(prompts) == len(sampling_params)
        self.asked += sampling_params
        return [
            SimpleNamespace(outputs=[self._write(prompt["prompt_token_ids"], how)])
            for prompt, how in zip(prompts, sampling_params, strict=True)
        ]

    @torch.no_grad()
    def _write(self, prompt: list[int], how: SamplingParams) -> Any:
        ids: list[int] = []
        logprobs: list[dict[int, Any]] = []
        while len(ids) < (how.max_tokens or 0):
            logits = self.network(torch.tensor([[*prompt, *ids]])).logits[0, -1]
            ids.append(int(logits.argmax()))
            own = float(logits.log_softmax(-1)[ids[-1]])
            logprobs.append({ids[-1]: SimpleNamespace(logprob=own, rank=1)})
            if ids[-1] in (how.stop_token_ids or []):
                break
        return SimpleNamespace(token_ids=tuple(ids), logprobs=logprobs, finish_reason="stop")


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    module = ModuleType("vllm")
    module.__dict__.update(LLM=LLM, SamplingParams=SamplingParams)
    module.__spec__ = SimpleNamespace(name="vllm")  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    yield module
    LLM.made.clear()


@pytest.fixture
def policy(tmp_path: Path) -> PreTrainedModel:
    return modeling.load_policy(make_tiny(tmp_path), CPU)


def open_one(name: str, policy: PreTrainedModel, **settings: Any) -> engines.Engine:
    sampling = Sampling(9, **({"temperature": 0.0} | settings))
    return engines.open_engine(name, policy, tiny_tokenizer(), sampling, batch_size=4, share=0.4)


def test_both_engines_take_the_same_likeliest_tokens(
    vllm: ModuleType, policy: PreTrainedModel
) -> None:
    told: list[int] = []
    ours = open_one("hf", policy).write(PROMPTS, SEEDS, told.append)
    theirs = open_one("vllm", policy).write(PROMPTS, SEEDS, told.append)
    assert [one[:4] for one in theirs] == [one[:4] for one in ours]
    assert [one.finished for one in theirs] == [one.finished for one in ours]
    for one, other in zip(theirs, ours, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
    assert told == [3, 3]


def test_every_setting_reaches_vllm(vllm: ModuleType, policy: PreTrainedModel) -> None:
    cuts = {"top_k": 7, "top_p": 0.8, "min_p": 0.1, "repetition_penalty": 1.2}
    engine = open_one("vllm", policy, temperature=0.7, **cuts)
    engine.write(PROMPTS, SEEDS)
    (llm,) = LLM.made
    assert [how.seed for how in llm.asked] == [11, 12, 13]
    for how in llm.asked:
        assert {name: getattr(how, name) for name in cuts} == cuts
        assert (how.temperature, how.max_tokens, how.n, how.logprobs) == (0.7, 9, 1, 0)
        assert how.ignore_eos
        assert how.stop_token_ids == [1]
    wanted = {"dtype": "float32", "gpu_memory_utilization": 0.4, "max_model_len": 128}
    assert {name: llm.settings[name] for name in wanted} == wanted
    assert not llm.settings["trust_remote_code"]
    assert not Path(llm.settings["model"]).exists()  # the folder was only the way in


def test_vllm_follows_the_policy(vllm: ModuleType, policy: PreTrainedModel) -> None:
    adapters.add_lora(policy, 4, 8.0, 0)
    engine = open_one("vllm", policy)
    before = engine.write(PROMPTS, SEEDS)
    with torch.no_grad():
        for name, value in adapters.adapter_parameters(policy).items():
            value += 0.3 if "lora_B" in name else 0.0
    assert engine.write(PROMPTS, SEEDS) == before
    engine.sync()
    after = [one.ids for one in engine.write(PROMPTS, SEEDS)]
    assert after == [one.ids for one in open_one("hf", policy).write(PROMPTS, SEEDS)]
    assert after != [one.ids for one in before]
    assert LLM.made[0].resets == 1  # keys and values of the old weights are of no use


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, (1.0, "raw_logprobs")),
        ({"temperature": 0.0}, (1.0, "raw_logprobs")),
        ({"temperature": 0.7}, (0.7, "processed_logprobs")),
        ({"temperature": 0.7, "min_p": 0.1}, (1.0, "raw_logprobs")),
        ({"temperature": 1.0, "top_p": 0.9}, (1.0, "raw_logprobs")),
        ({"temperature": 0.7, "repetition_penalty": 1.1}, (1.0, "raw_logprobs")),
    ],
)
def test_which_log_probabilities_vllm_can_give(
    settings: dict[str, Any], wanted: tuple[float, str]
) -> None:
    assert engines.logprobs_of(Sampling(9, **settings)) == wanted


def test_a_run_says_where_vllm_is_missing(tmp_path: Path) -> None:
    write_prompts(tmp_path / "prompts.jsonl")
    inputs = {"policy": str(make_tiny(tmp_path)), "prompts": str(tmp_path / "prompts.jsonl")}
    folder = make_run(tmp_path / "run", "generate", inputs, engine="vllm")
    with pytest.raises(RunError, match=r"“vllm”, which is not installed here.*choose the engine"):
        run_here(folder)


def test_a_run_names_its_engine(vllm: ModuleType, tmp_path: Path) -> None:
    write_prompts(tmp_path / "prompts.jsonl")
    inputs = {"policy": str(make_tiny(tmp_path)), "prompts": str(tmp_path / "prompts.jsonl")}
    config = {"engine": "vllm", "temperature": 0.5, "top_k": 3, "max_new_tokens": 4}
    folder = make_run(tmp_path / "run", "generate", inputs, **config)
    assert run_here(folder)["answers"] == 32
    line = read_lines(folder / "out" / "answers.jsonl")[0]
    assert (line["engine"], line["logprob_temperature"], line["temperature"]) == ("vllm", 1.0, 0.5)


def test_vllm_refuses_to_be_started_several_times(
    vllm: ModuleType, policy: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RunError, match="in one process only"):
        open_one("vllm", policy)
