"""Who writes the answers: the trainer's own loop over transformers' modules, or vLLM.

Choices
- An engine is opened on a model, writes answers with it, and takes over its weights when they
  have changed (`sync`). A run names its engine in its settings: both draw from the same
  distribution, but not the same answers.
- `hf` runs everywhere and needs nothing: the model in memory is the one that writes.
- `vllm` has a model of its own in the same process. It gets the merged weights through a folder
  when it is opened, later by their names through `load_weights`. Each answer is a request with its
  own seed.
- Log-probabilities that a loss is made of never come from an engine, but from the pass that
  training makes.
Non-goals: engines on other machines.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import PreTrainedModel

from trainer import ranks
from trainer.adapters import merged_state, save_merged
from trainer.events import RunError
from trainer.modeling import longest_context, stop_ids
from trainer.packing import packed
from trainer.rollout import generate
from trainer.types import Sampled, Sampling

#: requests that vLLM gets at once: between two such lots a run can be stopped
LOT = 1024


class Engine(Protocol):
    """Writes answers with a model."""

    def write(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[Sequence[int]],
        after_batch: Callable[[int], None] = lambda done: None,
    ) -> list[Sampled]:
        """Answers to each prompt, one for each of its seeds, in that order; `after_batch` hears how
        many are done and may raise to break off.
        """
        ...

    def sync(self) -> None:
        """Take over the model's weights of now."""

    def close(self) -> None:
        """Give back what the engine holds."""


class Manner(Protocol):
    """Settings that say who writes answers, how long, how freely, and how many side by side."""

    @property
    def max_new_tokens(self) -> int: ...

    @property
    def temperature(self) -> float: ...

    @property
    def write_batch(self) -> int: ...

    @property
    def engine(self) -> str: ...

    @property
    def engine_memory(self) -> float: ...


def engine_for(manner: Manner, model: PreTrainedModel, tokenizer: Any) -> Engine:
    """The engine that a run's settings name, drawing at their temperature from all tokens."""
    return open_engine(
        manner.engine,
        model,
        tokenizer,
        sampling_of(manner),
        batch_size=manner.write_batch,
        share=manner.engine_memory,
    )


def sampling_of(manner: Manner) -> Sampling:
    """How a run draws whose settings know of no cuts."""
    return Sampling(manner.max_new_tokens, manner.temperature)


def drawn_by(name: str, sampling: Sampling) -> dict[str, Any]:
    """How the engine of that name draws answers, as a line of answers.jsonl says it."""
    heat = logprobs_of(sampling)[0] if name == "vllm" else own_heat(sampling)
    return asdict(sampling) | {"engine": name, "logprob_temperature": heat}


def open_engine(
    name: str,
    model: PreTrainedModel,
    tokenizer: Any,
    sampling: Sampling,
    *,
    batch_size: int,
    share: float,
) -> Engine:
    """The engine of that name on a model.

    `share` is how much of a GPU's memory vLLM may take for its weights and its cache.
    """
    if name == "vllm":
        return Vllm(model, tokenizer, sampling, share)
    return OwnLoop(model, tokenizer, sampling, batch_size)


@dataclass(frozen=True)
class OwnLoop:
    """The loop of `trainer.rollout` over the very model, its weights packed while it writes."""

    model: PreTrainedModel
    tokenizer: Any
    sampling: Sampling
    batch_size: int

    def write(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[Sequence[int]],
        after_batch: Callable[[int], None] = lambda done: None,
    ) -> list[Sampled]:
        with packed(self.model) as writer:
            return generate(
                writer,
                prompts,
                seeds,
                self.sampling,
                stop=stop_ids(self.model, self.tokenizer),
                pad=self.tokenizer.pad_token_id,
                batch_size=self.batch_size,
                after_batch=after_batch,
            )

    def sync(self) -> None:
        """Nothing to do: the weights are the model's."""

    def close(self) -> None:
        """Nothing to give back."""


def own_heat(sampling: Sampling) -> float:
    """The temperature of the log-probabilities that `Sampled` promises."""
    return sampling.temperature or 1.0


class Vllm:
    """vLLM in this process (its LLM class; written for the releases that TRL 1.16 takes, 0.22 to
    0.31).
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: Any, sampling: Sampling, share: float
    ) -> None:
        self.model, self.sampling = model, sampling
        self.stop = sorted(stop_ids(model, tokenizer))
        _, mode = logprobs_of(sampling)
        if ranks.world() > 1:
            raise RunError(
                "The engine “vllm” writes in one process only; start the run without a launcher, "
                "or choose the engine “hf”."
            )
        # A worker in this process takes weights as they are; one of its own would want copies.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        self.vllm = import_vllm()
        window = longest_context(model)
        with tempfile.TemporaryDirectory(prefix="labelhub-vllm-") as folder:
            save_merged(model, tokenizer, Path(folder))
            self.llm: Any = self.vllm.LLM(
                model=folder,
                dtype=str(next(model.parameters()).dtype).removeprefix("torch."),
                seed=0,
                trust_remote_code=False,
                gpu_memory_utilization=share,
                generation_config="vllm",
                logprobs_mode=mode,
                **({"max_model_len": window} if window < 2**31 else {}),
            )

    def write(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[Sequence[int]],
        after_batch: Callable[[int], None] = lambda done: None,
    ) -> list[Sampled]:
        names = [(prompt, n) for prompt, many in enumerate(seeds) for n in range(len(many))]
        found: list[Sampled] = []
        for at in range(0, len(names), LOT):
            lot = names[at : at + LOT]
            results = self.llm.generate(
                [{"prompt_token_ids": list(prompts[prompt])} for prompt, _ in lot],
                [self._request(seeds[prompt][n]) for prompt, n in lot],
                use_tqdm=False,
            )
            for (prompt, n), result in zip(lot, results, strict=True):
                found.append(self._answer(prompt, n, seeds[prompt][n], result.outputs[0]))
            after_batch(len(found))
        return found

    def _request(self, seed: int) -> Any:
        """How one answer is drawn. Ends are asked for by token alone, so that they are ours."""
        one = self.sampling
        return self.vllm.SamplingParams(
            n=1,
            seed=seed,
            temperature=one.temperature,
            top_k=one.top_k,
            top_p=one.top_p,
            min_p=one.min_p,
            repetition_penalty=one.repetition_penalty,
            max_tokens=one.max_new_tokens,
            stop_token_ids=self.stop,
            ignore_eos=True,
            logprobs=0,
            detokenize=False,
        )

    def _answer(self, prompt: int, n: int, seed: int, written: Any) -> Sampled:
        """One completion as an answer; the token that ended it is part of it."""
        ids = [int(token) for token in written.token_ids]
        logprobs = [
            float(here[token].logprob) for token, here in zip(ids, written.logprobs, strict=True)
        ]
        return Sampled(prompt, n, seed, ids, logprobs, bool(ids) and ids[-1] in self.stop)

    def sync(self) -> None:
        weights = list(merged_state(self.model).items())
        self.llm.apply_model(lambda network: network.load_weights(iter(weights)))
        self.llm.reset_prefix_cache()

    def close(self) -> None:
        del self.llm
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def logprobs_of(sampling: Sampling) -> tuple[float, str]:
    """Temperature of the log-probabilities that vLLM can give, and what it calls them.

    Ours are the model's own at the sampling temperature. vLLM knows those at temperature 1 (raw)
    and those after penalty, temperature and cuts (processed): ours where nothing is cut.
    """
    cut = sampling.top_k > 0 or sampling.top_p < 1.0 or sampling.min_p > 0.0
    if own_heat(sampling) == 1.0 or cut or sampling.repetition_penalty != 1.0:
        return 1.0, "raw_logprobs"
    return sampling.temperature, "processed_logprobs"


def import_vllm() -> Any:
    """vLLM, or a sentence about where to get it."""
    if importlib.util.find_spec("vllm") is None:
        raise RunError(
            "config.engine is “vllm”, which is not installed here; install it into the trainer's "
            "environment (it wants a GPU), or choose the engine “hf”."
        )
    return importlib.import_module("vllm")
