"""Let a policy write K answers to each prompt.

Reads `policy` and `prompts`, writes out/answers.jsonl: one line an answer, in the order of the
prompts. An answer depends on the seed, its prompt's id and its number alone, not on what else is in
the file. There is nothing to resume but work of minutes, so a stopped run keeps the answers of its
finished batches in a checkpoint.
"""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

import torch

from trainer import distributed
from trainer.checkpoints import publish, record, resume
from trainer.config import GenerateConfig
from trainer.data import read_prompts
from trainer.engines import drawn_by, open_engine
from trainer.events import Stopped
from trainer.modeling import chat_ids, check_room, load_policy, load_tokenizer, longest_context
from trainer.placement import start
from trainer.rollout import answer_seed
from trainer.trials import answer_line, text_of
from trainer.types import RunContext, Sampling

#: prompts between two looks at whether to stop, and between two checkpoints
CHUNK_BATCHES = 4


def run(context: RunContext) -> dict[str, Any]:
    """Write the answers; returns how many and how long they are."""
    config = cast(GenerateConfig, context.spec.config)

    # 1. read what is asked
    model_path = context.input("policy")
    prompts = read_prompts(context.input("prompts"))
    checkpoint = resume(context)
    place = start(context, model_path, checkpoint.step if checkpoint else None)
    tokenizer = load_tokenizer(model_path)
    model = load_policy(model_path, place)
    ids = [chat_ids(tokenizer, prompt.messages) for prompt in prompts]
    names = [prompt.id for prompt in prompts]
    check_room(names, ids, config.max_new_tokens, longest_context(model))

    # 2. write answers, a chunk of prompts at a time
    lines: list[dict[str, Any]] = checkpoint.state["lines"] if checkpoint else []
    done = checkpoint.step if checkpoint else 0
    sampling = Sampling(**{item.name: getattr(config, item.name) for item in fields(Sampling)})
    chunk = max(1, CHUNK_BATCHES * config.batch_size // config.answers)
    engine = open_engine(
        config.engine,
        model,
        tokenizer,
        sampling,
        batch_size=config.batch_size,
        share=config.engine_memory,
    )
    with closing(engine):
        drawn = drawn_by(config.engine, sampling)
        while done < len(prompts):
            distributed.agree_to_stop(context)
            whole = slice(done, done + chunk)
            part = distributed.own(prompts[whole])
            seeds = [
                [answer_seed(context.spec.seed, prompt.id, n) for n in range(config.answers)]
                for prompt in part
            ]
            watch = _Watch(context, config, done, len(prompts), lines)
            sets: list[list[dict[str, Any]]] = [[] for _ in part]
            for one in engine.write(distributed.own(ids[whole]), seeds, watch):
                text = text_of(tokenizer, one.ids)
                sets[one.prompt].append(answer_line(part[one.prompt], one, text, drawn))
            lines += [line for some in distributed.gather(sets) for line in some]
            done += len(prompts[whole])
            context.emit("metric", done, total=len(prompts), **summary(lines))

    # 3. publish
    report = {"stage": "generate", "prompts": len(prompts), **summary(lines)}

    def write(folder: Path) -> None:
        body = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (folder / "answers.jsonl").write_text(body, "utf-8")
        (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")

    publish(context.out, write)
    context.progress(1.0)
    return report


@dataclass(frozen=True)
class _Watch:
    """After each batch: tell how far it is, and leave when asked to."""

    context: RunContext
    config: GenerateConfig
    done: int  # prompts of the chunks before
    total: int
    lines: list[dict[str, Any]]

    def __call__(self, count: int) -> None:
        self.context.progress((self.done + count / self.config.answers) / self.total)
        if self.context.should_stop():
            # The lines are the state; a checkpoint wants a tensor beside them.
            tensors = {"done": torch.tensor(self.done)}
            record(self.context, self.done, tensors, {"lines": self.lines})
            raise Stopped(f"Stopped after {self.done} of {self.total} prompts.")


def summary(lines: list[dict[str, Any]]) -> dict[str, float]:
    """Numbers for the progress of the run."""
    count = max(len(lines), 1)
    return {
        "answers": len(lines),
        "tokens": sum(line["tokens"] for line in lines),
        "length": sum(line["tokens"] for line in lines) / count,
        "eos_rate": sum(line["finished"] for line in lines) / count,
    }
