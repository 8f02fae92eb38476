"""Let a policy write K answers to each prompt.

Reads `policy` and `prompts`, writes out/answers.jsonl: one line an answer, in the order of the prompts. An answer depends on
the seed, its prompt's id and its number alone, not on what else is in the file. There is nothing to resume but work
of minutes, so a stopped run keeps the answers of its finished batches in a checkpoint.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import torch

from trainer.checkpoints import publish, resume, save
from trainer.config import GenerateConfig
from trainer.data import Prompt, read_prompts
from trainer.events import RunError, Stopped
from trainer.modeling import (
    chat_ids,
    load_policy,
    load_tokenizer,
    longest_context,
    packed,
    start,
    stop_ids,
)
from trainer.rollout import answer_seed, generate
from trainer.types import RunContext, Sampled

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
    refuse_long(prompts, ids, config.max_new_tokens, longest_context(model))

    # 2. write answers, a chunk of prompts at a time
    lines: list[dict[str, Any]] = checkpoint.state["lines"] if checkpoint else []
    done = checkpoint.step if checkpoint else 0
    chunk = max(1, CHUNK_BATCHES * config.batch_size // config.answers)
    with packed(model) as writer:
        while done < len(prompts):
            part = prompts[done : done + chunk]
            seeds = [
                [answer_seed(context.spec.seed, prompt.id, n) for n in range(config.answers)]
                for prompt in part
            ]
            begun = done

            def after_batch(count: int, begun: int = begun) -> None:
                context.progress((begun + count / config.answers) / len(prompts))
                if context.should_stop():
                    save_lines(context, begun, lines)
                    raise Stopped(f"Stopped after {begun} of {len(prompts)} prompts.")

            sampled = generate(
                writer,
                ids[done : done + chunk],
                seeds,
                stop=stop_ids(model, tokenizer),
                pad=tokenizer.pad_token_id,
                max_new_tokens=config.max_new_tokens,
                temperature=config.temperature,
                top_p=config.top_p,
                top_k=config.top_k,
                batch_size=config.batch_size,
                after_batch=after_batch,
            )
            lines += [_line(part[one.prompt], one, tokenizer, config) for one in sampled]
            done += len(part)
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


def save_lines(context: RunContext, done: int, lines: list[dict[str, Any]]) -> None:
    """Keep the answers to the first `done` prompts."""
    state = {"fingerprint": context.spec.fingerprint(), "lines": lines}
    path = save(context.folder, done, {"done": torch.tensor(done)}, state)
    context.emit("checkpoint", done, path=str(path.relative_to(context.folder)))


def refuse_long(prompts: list[Prompt], ids: list[list[int]], new: int, window: int) -> None:
    """A prompt must leave room for its answer."""
    for prompt, tokens in zip(prompts, ids, strict=True):
        if len(tokens) + new > window:
            raise RunError(
                f"The prompt “{prompt.id}” has {len(tokens)} tokens, which with {new} new ones is more "
                f"than the model's {window}; shorten it or lower config.max_new_tokens."
            )


def _line(prompt: Prompt, one: Sampled, tokenizer: Any, config: GenerateConfig) -> dict[str, Any]:
    """One line of answers.jsonl."""
    return {
        "id": f"{prompt.id}-{one.n}",
        "prompt_id": prompt.id,
        "prompt": list(prompt.messages),
        "text": tokenizer.decode(one.ids, skip_special_tokens=True).strip(),
        "logprob": round(one.logprob, 5),
        "tokens": len(one.ids),
        "finished": one.finished,
        "seed": one.seed,
        "temperature": config.temperature,
        "top_p": config.top_p,
        "top_k": config.top_k,
    }


def summary(lines: list[dict[str, Any]]) -> dict[str, float]:
    """Numbers for the progress of the run."""
    count = max(len(lines), 1)
    return {
        "answers": len(lines),
        "tokens": sum(line["tokens"] for line in lines),
        "length": sum(line["tokens"] for line in lines) / count,
        "eos_rate": sum(line["finished"] for line in lines) / count,
    }
