"""What must not matter does not: batches, padding, order, company, being stopped. For all stages.

Equalities are checked where the numbers come out, in the weights and files of whole small runs.
sft, prefer, pretrain and bestofn have their micro-batches and their resuming in files of their own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.tiny import make_tiny, tiny_tokenizer
from tests.trainer import every_stage
from tests.trainer.judging import (
    StopAt,
    events_of,
    gradients,
    make_run,
    read_lines,
    run_here,
    same_gradients,
    write_lines,
)
from trainer import checkpoints, modeling, placement, rewards
from trainer.events import RunError, Stopped
from trainer.manifests import folder_hash
from trainer.rollout import answer_seed, generate
from trainer.types import Sampling

CPU = placement.Placement(torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return every_stage.make_things(tmp_path_factory.mktemp("things"))


# being stopped ------------------------------------------------------------------------------------


class CountingStop(StopAt):
    """Never asks to stop, and counts how often it is asked."""

    def __init__(self) -> None:
        super().__init__(10**9)

    @property
    def looks(self) -> int:
        return 10**9 - self.left


@pytest.mark.parametrize(
    "name", ["generate", "reward", "reward-deep", "ppo", "evaluate", "evaluate-reward", "score"]
)
def test_stopped_at_any_look_it_ends_in_the_same_bytes(
    name: str, things: dict[str, Path], tmp_path: Path
) -> None:
    """Some six moments, from the first look at the wish to stop to the last."""
    calm = every_stage.make(tmp_path / "calm", things, name)
    counting = CountingStop()
    run_here(calm, counting)
    wanted = folder_hash(calm / "out")
    moments = range(0, counting.looks, max(1, counting.looks // 5))
    assert len(moments) >= 4
    for looks in moments:
        folder = every_stage.make(tmp_path / f"at{looks}", things, name)
        with pytest.raises(Stopped):
            run_here(folder, StopAt(looks))
        assert not (folder / "out").exists()
        run_here(folder)
        assert folder_hash(folder / "out") == wanted, f"stopped at look {looks}"


# micro-batches, padding, order --------------------------------------------------------------------


#: one optimiser step, whose gradient keeps its length: clipped, a wrong divisor would not be seen
ONE_STEP: dict[str, Any] = {"epochs": 1, "grad_clip": 0.0}


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("reward", {"checkpoint_every": 1, "rankings_per_step": 8}),
        # So many answers that some of them hold the word that the reward model likes.
        ("ppo", {"steps": 1, "minibatches": 1, "episodes_per_step": 48, "max_new_tokens": 8}),
    ],
)
def test_one_batch_is_the_sum_of_its_parts(
    name: str, first: dict[str, Any], things: dict[str, Path], tmp_path: Path
) -> None:
    """A step whose rows go through the model all at once, a few at a time, one at a time."""
    found, looks = [], []
    for budget in (4096, 64, 8):
        folder = every_stage.make(tmp_path / str(budget), things, name, token_budget=budget,
                                  keep_checkpoints=100, **ONE_STEP, **first)  # fmt: skip
        counting = CountingStop()  # is asked after each part
        run_here(folder, counting)
        found.append(gradients(folder))
        looks.append(counting.looks)
    assert looks[0] < looks[1] < looks[2]
    same_gradients(found[0], found[1])
    same_gradients(found[0], found[2])


def test_the_order_of_a_steps_rankings_does_not_matter(
    things: dict[str, Path], tmp_path: Path
) -> None:
    lines = read_lines(things["rankings"])[:4]
    found = []
    for name, some in (("forwards", lines), ("backwards", lines[::-1])):
        data = write_lines(tmp_path / name / "rankings.jsonl", some)
        config = {**ONE_STEP, "heldout_fraction": 0.0, "ensemble": 1}
        folder = every_stage.make(tmp_path / name, {**things, "rankings": data}, "reward", **config)
        run_here(folder)
        (metric,) = events_of(folder, "metric")
        found.append((metric["loss"], gradients(folder)))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-6)
    same_gradients(found[0][1], found[1][1])


@pytest.mark.parametrize("name", ["score", "evaluate-reward"])
def test_batches_do_not_change_a_score(name: str, things: dict[str, Path], tmp_path: Path) -> None:
    reports = []
    for budget in (8, 4096):
        folder = every_stage.make(tmp_path / str(budget), things, name, token_budget=budget)
        reports.append(run_here(folder))
    numbers = [
        {key: value for key, value in report.items() if isinstance(value, float)}
        for report in reports
    ]
    assert numbers[0]
    assert numbers[0] == pytest.approx(numbers[1], abs=1e-5)


def test_what_else_is_asked_does_not_change_an_answer(
    things: dict[str, Path], tmp_path: Path
) -> None:
    prompts = read_lines(things["prompts"])
    few = write_lines(tmp_path / "few.jsonl", prompts[7:3:-1])
    answers = []
    for name, path in (("all", things["prompts"]), ("few", few)):
        folder = every_stage.make(tmp_path / name, {**things, "prompts": path}, "generate")
        run_here(folder)
        lines = read_lines(folder / "out" / "answers.jsonl")
        answers.append({line["id"]: line["text"] for line in lines})
    assert len(answers[1]) == 8
    assert answers[1].items() <= answers[0].items()


# two ways to the same number ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return modeling.load_policy(make_tiny(tmp_path_factory.mktemp("policy")), CPU)


PROMPTS = [[3, 6, 7, 8, 1, 4], [3, 9, 1, 4], [3, 10, 11, 12, 13, 1, 4]]


def test_padding_on_the_left_and_on_the_right_agree(policy: Any) -> None:
    """The sampler pads on the left, training on the right, the plain model not at all."""
    seeds = [[answer_seed(0, place)] for place in range(len(PROMPTS))]
    sampled = generate(policy, PROMPTS, seeds, Sampling(8), stop=[1], pad=0)
    rows = [(PROMPTS[one.prompt], [one.ids]) for one in sampled]
    trained, _ = modeling.response_logprobs(policy, modeling.collate(rows, pad=0), 1.0)
    for row, one in enumerate(sampled):
        ids = torch.tensor([PROMPTS[one.prompt] + one.ids])
        logits = policy(input_ids=ids).logits[0, len(PROMPTS[one.prompt]) - 1 : -1]
        plain = logits.log_softmax(-1).gather(1, torch.tensor(one.ids)[:, None])[:, 0]
        size = len(one.ids)
        torch.testing.assert_close(torch.tensor(one.logprobs), plain, rtol=0, atol=1e-5)
        torch.testing.assert_close(trained[row, :size], plain, rtol=0, atol=1e-5)


@pytest.mark.parametrize("garbage", [-7.0, 1e6])
def test_no_figure_of_ppo_looks_at_padding(garbage: float) -> None:
    """Whatever stands on padding, each masked function gives the very same numbers."""
    dice = torch.Generator().manual_seed(0)
    mask = torch.tensor([[True, True, True, False], [True, False, False, False]])
    clean = [torch.randn(2, 4, generator=dice) * 0.3 for _ in range(4)]
    dirty = [torch.where(mask, one, garbage) for one in clean]

    def figures(a: Any, b: Any, c: Any, d: Any) -> list[torch.Tensor]:
        score = torch.tensor([1.0, -1.0])
        kl = rewards.kl_k1(a, b, mask)
        advantages, returns = rewards.gae(c * mask, d, mask, 0.9, 0.8)
        return [
            rewards.masked_mean(a, mask), rewards.masked_variance(a, mask), kl,
            rewards.whiten(a, mask), rewards.kl_k2(a, b, mask), rewards.kl_k3(a, b, mask),
            rewards.shaped_rewards(kl, score, mask, 0.1), advantages, returns,
            *rewards.policy_loss(a, b, advantages, mask, 0.2),
            rewards.value_loss(a, b, c, mask, 0.2),
            torch.tensor(rewards.explained_variance(a, c, mask)),
        ]  # fmt: skip

    for one, other in zip(figures(*clean), figures(*dirty), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


# what moves ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parts"),
    [("reward", ("model.model.", "model.members.")), ("ppo", ("policy.", "critic."))],
)
def test_everything_that_is_trained_moves_and_nothing_else_does(
    name: str, parts: tuple[str, ...], things: dict[str, Path], tmp_path: Path
) -> None:
    folder = every_stage.make(tmp_path / "run", things, name, keep_checkpoints=100)
    with pytest.raises(Stopped):
        run_here(folder, StopAt(1))
    run_here(folder)
    steps = checkpoints.steps_of(folder)
    first, last = (checkpoints.load(path).tensors for _, path in (steps[-1], steps[0]))
    for part in parts:
        learned = [key for key in last if key.startswith(part)]
        assert learned, part
        assert [key for key in learned if torch.equal(first[key], last[key])] == []
    # What is not learned is, bit for bit, the base's.
    base = load_file(things["policy"] / "model.safetensors")
    out = load_file(folder / "out" / "model.safetensors")
    frozen = [key for key in base if key in out and not key.endswith("proj.weight")]
    assert len(frozen) >= 5
    assert [key for key in frozen if not torch.equal(base[key], out[key])] == []


# padding is no end --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["generate", "reward", "ppo", "evaluate", "score", "sft", "dpo", "rloo", "bestofn"],
)
def test_every_stage_refuses_a_tokenizer_that_pads_with_its_end(
    name: str, things: dict[str, Path], tmp_path: Path
) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    spoilt = {}
    for role in ("policy", "reward"):
        path = tmp_path / role
        path.mkdir()
        for file in things[role].iterdir():
            (path / file.name).write_bytes(file.read_bytes())
        tokenizer.save_pretrained(str(path))
        spoilt[role] = path
    changed = {**things, **spoilt, "base": spoilt["policy"]}
    folder = every_stage.make(tmp_path / "run", changed, name)
    with pytest.raises(RunError, match="pads with its end-of-text token"):
        run_here(folder)
    assert events_of(folder, "metric") == []


# what is held out ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "taught"), [("reward", "rankings"), ("dpo", "rankings"), ("sft", "pairs")]
)
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_a_test_on_prompts_that_are_trained_on_is_told(
    name: str, taught: str, things: dict[str, Path], tmp_path: Path
) -> None:
    """Five lines are held out: three with prompts of their own, two that are trained on, too."""
    lines = read_lines(things[taught])
    asked = [[{"role": "user", "content": f"see the {word}"}] for word in ("sun", "sea", "sky")]
    alone = [lines[0] | {"prompt": prompt} for prompt in asked]
    stage, inputs, settings = every_stage.RUNS[name]
    given = {one: things[one] for one in inputs}
    for held, said in (([*alone, *lines[:2]], 1), (alone, 0)):
        folder = tmp_path / f"run{said}"
        given["heldout"] = write_lines(tmp_path / f"heldout{said}.jsonl", held)
        run_here(make_run(folder, stage, given, **settings))
        told = [one for one in events_of(folder, "alert") if one["code"] == "heldout_trained_on"]
        assert len(told) == said
        if said:
            assert told[0]["message"].startswith("2 of the 5 lines of the input heldout have a")
