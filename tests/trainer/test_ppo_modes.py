"""PPO in all its ways: what learns, what is frozen, what judges, what is looked at."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaForSequenceClassification

from tests.tiny import (
    SPECIAL,
    WORDS,
    make_tiny,
    make_tiny_reward,
    tiny_config,
    tiny_tokenizer,
    write_prompts,
)
from tests.trainer.test_ppo import events_of, hashes, make_run, run_here
from trainer import checkpoints, critics, modeling, ptx, scoring
from trainer.config import PPOConfig, SpecError
from trainer.events import RunError, Stopped
from trainer.judging import Scorer, judge_tokens
from trainer.placement import Placement

CPU = Placement(torch.device("cpu"), torch.float32)
MODES: dict[str, dict[str, Any]] = {
    "full": {"lora": False, "lr": 1e-3, "lr_schedule": "linear"},
    "critic on the policy": {"critic": "policy", "answers_per_prompt": 2},
    "critic with an adapter": {"critic": "adapter", "answers_per_prompt": 2, "lora_layers": 1},
    "one base for all": {"critic": "adapter", "answers_per_prompt": 2, "lora_layers": 1},
    "full with an adapter critic": {"lora": False, "critic": "adapter", "critic_warmup": 1},
    "everything": {
        "critic": "adapter", "critic_warmup": 1, "kl_estimator": "k3", "kl_control": "adaptive",
        "pessimism": 0.5, "ptx_coef": 0.5, "ptx_batch": 3, "watch_every": 1,
        "lr_schedule": "linear",
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_tiny(folder)
    make_tiny_reward(folder)
    write_prompts(folder / "prompts.jsonl")
    # a reward model whose lower layer is the policy's, as one with an adapter on top has it
    sister: Any = LlamaForSequenceClassification.from_pretrained(
        str(folder / "policy"), num_labels=1
    )
    with torch.no_grad():
        sister.model.layers[1].mlp.down_proj.weight.mul_(1.5)
    sister.save_pretrained(str(folder / "sister"))
    tiny_tokenizer().save_pretrained(str(folder / "sister"))
    lines = (folder / "prompts.jsonl").read_text().splitlines()
    (folder / "training.jsonl").write_text("\n".join(lines[:5]) + "\n")
    (folder / "heldout.jsonl").write_text("\n".join(lines[5:]) + "\n")
    pairs = [
        {"prompt": [{"role": "user", "content": f"{word} tea"}], "answer": f"the {word} sea is red"}
        for word in ("cold", "warm", "fine", "poor")
    ]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)) + "\n")
    return folder


@pytest.fixture(scope="module")
def ensemble(models: Path) -> Path:
    """The reward model with four heads around its own."""
    path = make_tiny_reward(models / "ensemble")
    model: Any = modeling.load_reward(path, CPU)
    members = scoring.make_members(model.score, 4)
    with torch.no_grad():
        noise = torch.randn(members.weight.shape, generator=torch.Generator().manual_seed(0))
        members.weight.add_((noise - noise.mean(0)) * 0.1)
    scoring.write_members(members, path)
    return path


def prepare(folder: Path, models: Path, inputs: dict[str, Path], **config: Any) -> Path:
    """A run of three steps with other inputs besides."""
    run = make_run(folder, models, **({"steps": 3} | config))
    body = json.loads((run / "spec.json").read_text())
    body["inputs"] |= {name: str(path) for name, path in inputs.items()}
    (run / "spec.json").write_text(json.dumps(body))
    return run


def inputs_of(mode: str, models: Path, ensemble: Path) -> dict[str, Path]:
    if mode == "one base for all":
        return {"reward": models / "sister"}
    if mode != "everything":
        return {}
    return {
        "reward": ensemble, "second": models / "reward", "prompts": models / "training.jsonl",
        "heldout": models / "heldout.jsonl", "pairs": models / "pairs.jsonl",
    }  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_it_begins_at_its_reference_and_resumes_bit_for_bit(
    mode: str, models: Path, ensemble: Path, tmp_path: Path
) -> None:
    inputs = inputs_of(mode, models, ensemble)
    straight = prepare(tmp_path / "straight", models, inputs, **MODES[mode])
    asked = _Counting()
    run_here(straight, asked)
    first = events_of(straight, "metric")[0]
    assert (first["kl"], first["kl_k3"], first["ratio_first"]) == (0.0, 0.0, 1.0)
    assert all(event["ratio_first"] == 1.0 for event in events_of(straight, "metric"))

    # stopped within the second step's update, and once more while the answers are judged
    halved = prepare(tmp_path / "halved", models, inputs, **MODES[mode])
    for after in (asked.count * 11 // 20, 3):
        with pytest.raises(Stopped):
            run_here(halved, _Counting(after))
    run_here(halved)
    assert hashes(halved / "out") == hashes(straight / "out")
    one, two = (
        checkpoints.load(run / "checkpoints" / "step_3").tensors for run in (straight, halved)
    )
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


class _Counting(threading.Event):
    """Asks to stop at the question of that number."""

    def __init__(self, after: int | None = None) -> None:
        super().__init__()
        self.after, self.count = after, 0

    def is_set(self) -> bool:
        self.count += 1
        return self.after is not None and self.count > self.after


def test_full_training_moves_every_weight_and_leaves_the_reference(
    models: Path, tmp_path: Path
) -> None:
    run = prepare(tmp_path / "run", models, {}, lora=False, lr=1e-3, steps=2)
    run_here(run)
    after = AutoModelForCausalLM.from_pretrained(str(run / "out")).state_dict()
    before = AutoModelForCausalLM.from_pretrained(str(models / "policy")).state_dict()
    assert after.keys() == before.keys()
    assert [name for name in after if torch.equal(after[name], before[name])] == []
    assert not (run / "out" / "adapter").exists()
    assert "adapter" not in (run / "out" / "README.md").read_text()
    # the KL of the second step is that from the weights that were read, not from the first step's
    assert events_of(run, "metric")[1]["kl"] != 0.0


def test_full_training_writes_the_number_format_that_was_asked_for(
    models: Path, tmp_path: Path
) -> None:
    run = prepare(tmp_path / "run", models, {}, lora=False, lr=1e-3, steps=1, dtype="bfloat16")
    run_here(run)
    (event,) = events_of(run, "metric")
    assert (event["kl"], event["ratio_first"]) == (0.0, 1.0)
    weights = AutoModelForCausalLM.from_pretrained(str(run / "out"), dtype="auto")
    assert weights.dtype == torch.bfloat16


def test_a_critic_with_an_adapter_learns_and_the_scores_stay(models: Path, tmp_path: Path) -> None:
    config = {"steps": 2, "lr": 0.0, "critic_lr": 1e-2, "samples": 0}
    found = {}
    for critic in ("head", "adapter"):
        run = prepare(tmp_path / critic, models, {}, critic=critic, **config)
        found[critic] = run_here(run)["history"]
    # The policy stands still: both runs see the same answers, and the same scores of them, though
    # the adapter in the reward model has moved by the second step.
    for one, other in zip(found["head"], found["adapter"], strict=True):
        assert other["reward"] == pytest.approx(one["reward"], abs=1e-6)
    # Both begin as the reward model's own head.
    first, other = (found[critic][0]["value_mean"] for critic in ("head", "adapter"))
    assert other == pytest.approx(first, abs=1e-5)
    before, after = (
        checkpoints.load(tmp_path / "adapter" / "checkpoints" / f"step_{step}").tensors
        for step in (1, 2)
    )
    critic = {name for name in after if name.startswith("critic.")}
    assert len(critic) == 2 * 7 * 2 + 2  # A and B on 7 linear layers in 2 layers, and the head
    assert {name for name in critic if not torch.equal(before[name], after[name])} == critic


@pytest.mark.parametrize("critic", ["head", "policy", "adapter"])
def test_while_the_critic_warms_up_the_policy_stands_still(
    critic: str, models: Path, tmp_path: Path
) -> None:
    run = prepare(
        tmp_path / "run", models, {}, critic=critic, critic_warmup=2, kl_control="adaptive"
    )
    run_here(run)
    metrics = events_of(run, "metric")
    assert [event["kl"] for event in metrics] == [0.0, 0.0, 0.0]
    assert [event["ratio_mean"] for event in metrics[:2]] == [1.0, 1.0]
    assert [event["grad_norm"] > 0 for event in metrics] == [False, False, True]
    # KL 0 before the policy moves says nothing about β
    assert [event["kl_coef"] for event in metrics] == [0.05] * 3
    before, after = (
        checkpoints.load(run / "checkpoints" / f"step_{step}").tensors for step in (2, 3)
    )
    assert all(not value.any() for name, value in before.items() if "lora_B" in name and
               name.startswith("policy."))  # fmt: skip
    moved = [name for name in after if name.startswith("policy.") and after[name].any()]
    assert len(moved) == 2 * 7 * 2
    assert before["critic.weight"].any()


def test_a_better_critic_explains_more() -> None:
    """Own network: a critic that is fitted to given returns gets there."""
    torch.manual_seed(2)
    model = LlamaForSequenceClassification(tiny_config(num_labels=1)).requires_grad_(False)
    scorer = Scorer(scoring.Judge(model, None, scoring.Normalisation(1.0, 2.0), 64))
    head = critics.head_of(scorer)
    states = torch.randn(5, 32)
    wanted = (model.score(states)[:, 0] - 1.0) / 2.0
    torch.testing.assert_close(head(states)[:, 0], wanted)


def test_the_next_token_loss_is_that_of_transformers(models: Path) -> None:
    """Of pairs of different lengths, also when they go through in several parts."""
    model = AutoModelForCausalLM.from_pretrained(str(models / "policy"))
    rows = [([3, 20, 1, 4], [[30, 31, 32, 1]]), ([3, 21, 4], [[33, 1]])]
    ids = torch.tensor([[3, 20, 1, 4, 30, 31, 32, 1], [3, 21, 4, 33, 1, 0, 0, 0]])
    labels = torch.tensor([[-100] * 4 + [30, 31, 32, 1], [-100] * 3 + [33, 1, -100, -100, -100]])
    loss = model(input_ids=ids, attention_mask=(ids != 0).long(), labels=labels).loss
    (0.7 * loss).backward()
    wanted = {name: value.grad.clone() for name, value in model.named_parameters()}
    for budget in (8, 4096):
        model.zero_grad()
        some = ptx.Ptx(rows, 0, 0, budget, 0.7, batch_size=2, seed=0)
        assert some.backward(model, 0, lambda: None) == pytest.approx(float(loss.detach()))
        for name, value in model.named_parameters():
            torch.testing.assert_close(value.grad, wanted[name], rtol=1e-4, atol=1e-6)


def test_every_pair_comes_once_in_a_pass() -> None:
    rows: list[ptx.Row] = [([n], [[n]]) for n in range(6)]
    some = ptx.Ptx(rows, 0, 0, 64, 1.0, batch_size=4, seed=3)
    order = [row[0][0] for index in range(3) for row in some.chosen(index)]
    assert sorted(order[:6]) == sorted(order[6:]) == list(range(6))


def test_pairs_mixed_in_are_learned(models: Path, tmp_path: Path) -> None:
    pairs = {"pairs": models / "pairs.jsonl"}
    run = prepare(tmp_path / "run", models, pairs, ptx_coef=2.0, ptx_batch=4, lr=1e-2, steps=4)
    losses = [event["ptx_loss"] for event in (run_here(run), events_of(run, "metric"))[1]]
    assert losses[-1] < losses[0] - 0.5


@pytest.mark.parametrize(
    ("coef", "given", "sentence"),
    [(0.5, False, "there are no pairs to go on"), (0.0, True, "would have no effect")],
)
def test_pairs_and_their_weight_come_together(
    coef: float, given: bool, sentence: str, models: Path, tmp_path: Path
) -> None:
    inputs = {"pairs": models / "pairs.jsonl"} if given else {}
    with pytest.raises(SpecError, match=sentence):
        run_here(prepare(tmp_path / "run", models, inputs, ptx_coef=coef))


def test_what_an_ensemble_and_a_second_model_tell(
    models: Path, ensemble: Path, tmp_path: Path
) -> None:
    inputs = inputs_of("everything", models, ensemble)
    del inputs["pairs"]
    run = prepare(tmp_path / "run", models, inputs, lr=0.0, watch_every=2)
    report = run_here(run)
    first, plain, third = events_of(run, "metric")
    assert first["member_spread"] > 0
    assert first["member_min"] < first["reward"]
    # The policy stands still and draws the same numbers: every look sees the same.
    for name in ("heldout_reward", "second_reward", "heldout_min", "heldout_spread"):
        assert third[name] == first[name] == report["final"][name]
        assert name not in plain
    assert (first["heldout_kl"], first["sqrt_kl"]) == (0.0, 0.0)
    # The members' mean is the model's own score, and the second model is that same model.
    assert first["second_reward"] == pytest.approx(first["heldout_reward"], abs=1e-5)


def test_pessimism_lowers_what_is_paid(models: Path, ensemble: Path, tmp_path: Path) -> None:
    paid = {}
    for name, config in {
        "mean": {}, "less": {"pessimism": 0.5}, "minimum": {"ensemble": "minimum"}
    }.items():  # fmt: skip
        run = prepare(tmp_path / name, models, {"reward": ensemble}, steps=1, **config)
        paid[name] = run_here(run)["history"][0]
    mean, spread = paid["mean"]["objective"], paid["mean"]["member_spread"]
    assert mean == pytest.approx(paid["mean"]["reward"], abs=1e-5)  # at step 0 no KL is paid
    assert paid["less"]["objective"] == pytest.approx(mean - 0.5 * spread, abs=1e-5)
    assert paid["minimum"]["objective"] == pytest.approx(paid["mean"]["member_min"], abs=1e-5)


@pytest.mark.parametrize("critic", ["head", "adapter"])
def test_an_ensemble_of_adapters_is_heard(critic: str, models: Path, tmp_path: Path) -> None:
    """Its members are asked as the stage `score` asks them, also under a critic's own adapter."""
    path = make_tiny_reward(tmp_path / "adapters")
    model: Any = modeling.load_reward(path, CPU)
    dice = torch.Generator().manual_seed(4)
    layer = "model.layers.0.self_attn.v_proj"
    out, into = model.get_parameter(f"{layer}.weight").shape
    low = {layer: (torch.randn(2, into, generator=dice), torch.randn(out, 2, generator=dice) / 9)}
    head = {"score.weight": model.score.weight * 2}
    scoring.write_adapters([scoring.Member(low, {}), scoring.Member({layer: low[layer]}, head)],
                           model, path)  # fmt: skip
    run = prepare(tmp_path / "run", models, {"reward": path}, steps=2, critic=critic, lora_layers=1)
    report = run_here(run)
    step = report["history"][1]
    assert step["member_spread"] > 0
    assert step["member_min"] < step["reward"]
    # what is paid is the members' mean, which is not the first one's score
    assert step["objective"] != pytest.approx(step["reward"] - 0.05 * step["kl"], abs=1e-3)


def test_members_that_are_adapters_score_as_the_stage_score_has_it(
    models: Path, tmp_path: Path
) -> None:
    path = make_tiny_reward(tmp_path / "adapters")
    model: Any = modeling.load_reward(path, CPU)
    dice = torch.Generator().manual_seed(4)
    layer = "model.layers.1.mlp.down_proj"
    out, into = model.get_parameter(f"{layer}.weight").shape
    low = {layer: (torch.randn(2, into, generator=dice), torch.randn(out, 2, generator=dice))}
    member = scoring.Member(low, {"score.weight": torch.randn(1, 32, generator=dice)})
    judge = scoring.Judge(model, None, scoring.Normalisation(0.5, 2.0), 64, adapters=[member])
    scorer = Scorer(judge)
    batch = modeling.collate([([3, 20, 4], [[30, 31, 1]]), ([3, 4], [[33, 1]])], 0)
    found = judge_tokens(scorer, [(torch.tensor([1, 0]), batch)], 2, lambda: None)
    alone = scoring.batch_scores(model, batch, 0)
    with scoring.speaking(model, member):
        other = scoring.batch_scores(model, batch, 0)
    wanted = (torch.stack([alone, other], 1)[[1, 0]] - 0.5) / 2.0
    torch.testing.assert_close(found.members, wanted)
    torch.testing.assert_close(found.score, wanted[:, 0])


def test_pessimism_needs_an_ensemble(models: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"is no ensemble, so config\.pessimism"):
        run_here(prepare(tmp_path / "run", models, {}, pessimism=1.0))
    with pytest.raises(SpecError, match="the lowest member has no spread"):
        PPOConfig(pessimism=1.0, ensemble="minimum")


def test_a_second_model_without_held_out_prompts_reads_the_steps_answers(
    models: Path, tmp_path: Path
) -> None:
    run = prepare(tmp_path / "run", models, {"second": models / "reward"}, steps=1)
    run_here(run)
    (event,) = events_of(run, "metric")
    assert event["second_reward"] == pytest.approx(event["reward"], abs=1e-6)


def test_a_held_out_prompt_that_is_trained_on_is_refused(models: Path, tmp_path: Path) -> None:
    run = prepare(tmp_path / "run", models, {"heldout": models / "heldout.jsonl"})
    with pytest.raises(RunError, match="3 of the held-out prompts are trained on as well"):
        run_here(run)


def test_a_policy_that_is_watched_learns_the_same(
    models: Path, ensemble: Path, tmp_path: Path
) -> None:
    found = {}
    inputs = {"reward": ensemble, "prompts": models / "training.jsonl"}
    for name, more in {"alone": {}, "watched": {"heldout": models / "heldout.jsonl"}}.items():
        run = prepare(tmp_path / name, models, inputs | more, watch_every=1)
        run_here(run)
        looks = ["heldout_reward" in event for event in events_of(run, "metric")]
        assert looks == [name == "watched"] * 3
        found[name] = checkpoints.load(run / "checkpoints" / "step_3").tensors
    alone, watched = found.values()
    assert alone.keys() == watched.keys()
    assert all(torch.equal(alone[name], watched[name]) for name in alone)


def test_an_alarm_is_raised_once(models: Path, tmp_path: Path) -> None:
    """A policy that learns to say one word alone loses its variety."""
    run = prepare(
        tmp_path / "run", models, {}, steps=8, lr=5e-2, kl_coef=0.0, kl_budget=0.0, target_kl=0.0,
        episodes_per_step=32, lr_schedule="constant",
    )  # fmt: skip
    report = run_here(run)
    codes = [event["code"] for event in events_of(run, "alert")]
    assert "distinct_collapse" in codes
    assert len(codes) == len(set(codes))
    assert report["alerts"] == codes


def test_a_bandit_is_played_as_well_as_it_can_be(tmp_path: Path) -> None:
    """One prompt, answers of one token, a score for each token of the vocabulary.

    The best policy is known: π* ∝ π_ref · exp(score / β), worth β · log Σ π_ref exp(score / β).
    """
    make_tiny(tmp_path)
    beta, prompt = 0.5, {"id": "p", "prompt": [{"role": "user", "content": "sea book"}]}
    (tmp_path / "prompts.jsonl").write_text(json.dumps(prompt) + "\n")
    ids = tiny_tokenizer()("<user> sea book <end> <assistant>")["input_ids"]
    score = _plant_scores(tmp_path / "reward", ids)
    run = make_run(
        tmp_path / "run", tmp_path, lora=False, lr=3e-3, steps=50, episodes_per_step=256,
        answers_per_prompt=256, max_new_tokens=1, kl_coef=beta, kl_budget=0.0, epochs=4,
        minibatches=1, score_clip=0.0, samples=0, target_kl=0.0, critic="policy", critic_lr=3e-2,
        token_budget=4096, checkpoint_every=100,
    )  # fmt: skip
    run_here(run)

    @torch.no_grad()
    def logprobs(path: Path) -> torch.Tensor:
        model = AutoModelForCausalLM.from_pretrained(str(path))
        found: torch.Tensor = model(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(-1)
        return found

    reference, learned = logprobs(tmp_path / "policy"), logprobs(run / "out")

    def worth(policy: torch.Tensor) -> float:
        return float((policy.exp() * (score - beta * (policy - reference))).sum())

    best = beta * float((reference + score / beta).logsumexp(-1))
    assert worth(reference) < 0.2 * best
    assert 0.95 * best < worth(learned) <= best + 1e-5


def _plant_scores(path: Path, prompt: list[int]) -> torch.Tensor:
    """A random reward model, its scores of every one-token answer brought to mean 0 and std 1."""
    torch.manual_seed(3)
    model = LlamaForSequenceClassification(tiny_config(num_labels=1))
    model.save_pretrained(str(path))
    tiny_tokenizer().save_pretrained(str(path))
    words, end = len(SPECIAL) + len(WORDS), 1
    rows = torch.tensor([[*prompt, token, end] for token in range(words)])
    with torch.no_grad():
        scores = model.score(model.model(rows).last_hidden_state)[..., 0]
    raw = scores[:, -1].clone()
    raw[end] = scores[end, -2]  # an answer that is nothing but its end has no second one
    mean, std = float(raw.mean()), float(raw.std(correction=0))
    (path / "normalisation.json").write_text(json.dumps({"mean": mean, "std": std}))
    return (raw - mean) / std
