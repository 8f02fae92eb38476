"""PPO as a whole: it learns, it begins exactly at its reference, and nothing can make it forget."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.tiny import SPECIAL, WORDS, make_tiny, make_tiny_reward, tiny_tokenizer, write_prompts
from tests.trainer.judging import gradients, same_gradients
from trainer import checkpoints, critics, episodes, rewards
from trainer.__main__ import FAILED, FINISHED, STOPPED
from trainer.config import load_spec
from trainer.events import EventWriter, Heartbeat, RunError, Stopped, read_events
from trainer.manifests import files_of, sha256_file, verify_manifest
from trainer.modeling import chat_ids
from trainer.stages import generate, ppo
from trainer.types import Batch, RunContext, Sampled

GOOD = [*SPECIAL, *WORDS].index("good")
#: seconds that a trainer process may take on a busy machine
WAIT = 200
QUICK: dict[str, Any] = {
    "steps": 6, "episodes_per_step": 8, "max_new_tokens": 6, "lora_r": 4, "samples": 2,
    "minibatches": 2, "token_budget": 64, "threads": 1, "lr": 3e-3,
}  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_tiny(folder)
    make_tiny_reward(folder)
    write_prompts(folder / "prompts.jsonl")
    return folder


def make_run(folder: Path, models: Path, **config: Any) -> Path:
    folder.mkdir()
    inputs = {
        "policy": str(models / "policy"),
        "reward": str(models / "reward"),
        "prompts": str(models / "prompts.jsonl"),
    }
    spec = {"stage": "ppo", "seed": 5, "config": QUICK | config, "inputs": inputs}
    (folder / "spec.json").write_text(json.dumps(spec))
    return folder


def run_here(folder: Path, stop: threading.Event | None = None) -> dict[str, Any]:
    """The stage in this process."""
    events = EventWriter(folder)
    context = RunContext(folder, load_spec(folder), events, Heartbeat(events))
    context.stop = stop or context.stop
    report: dict[str, Any] = ppo.run(context)
    return report


def start_process(folder: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (folder / "output.log").open("ab") as log:
        command = [sys.executable, "-m", "trainer", "run", str(folder)]
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


def events_of(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [event for event in read_events(folder) if event["kind"] == kind]


def wait_for_step(folder: Path, process: subprocess.Popen[bytes], step: int) -> None:
    """Until a checkpoint of that step was written."""
    while process.poll() is None:
        if any(event["step"] == step for event in events_of(folder, "checkpoint")):
            return
        time.sleep(0.01)
    pytest.fail((folder / "output.log").read_text()[-2000:])


def hashes(folder: Path) -> dict[str, str]:
    return {str(path): sha256_file(folder / path) for path in files_of(folder)}


def test_it_raises_a_trivial_reward(models: Path, tmp_path: Path) -> None:
    run = make_run(
        tmp_path / "run", models,
        steps=12, episodes_per_step=64, max_new_tokens=8, lr=1e-2, kl_coef=0.01, kl_budget=0.0,
    )  # fmt: skip
    report = run_here(run)
    # The reward is √32 · share of “good”, after a norm: a random policy says it once in 40 words.
    assert report["score_after"] > report["score_before"] + 0.5
    assert report["kl"] > 0.1

    @torch.no_grad()
    def goods(path: Path) -> float:
        model = AutoModelForCausalLM.from_pretrained(str(path))
        prompt = tiny_tokenizer()("<user> sea book <end> <assistant>", return_tensors="pt")
        return float(model(input_ids=prompt["input_ids"]).logits[0, -1].softmax(-1)[GOOD])

    assert goods(run / "out") > 3 * goods(models / "policy")


def test_at_step_0_kl_is_exactly_0_and_the_ratio_exactly_1(models: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", models, steps=2, answers_per_prompt=2)
    run_here(run)
    first, second = events_of(run, "metric")
    assert (first["kl"], first["kl_k3"], first["ratio_first"]) == (0.0, 0.0, 1.0)
    assert second["ratio_first"] == 1.0
    assert second["kl"] != 0.0


def test_in_bfloat16_too(models: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", models, steps=1, dtype="bfloat16", lora_layers=1)
    run_here(run)
    (first,) = events_of(run, "metric")
    assert (first["kl"], first["ratio_first"]) == (0.0, 1.0)
    weights = AutoModelForCausalLM.from_pretrained(str(run / "out"), dtype="auto")
    assert weights.dtype == torch.bfloat16


def test_what_a_step_tells(models: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", models, steps=2)
    report = run_here(run)
    (started,) = events_of(run, "started")
    assert (started["threads"], started["dtype"], started["resumed_from"]) == (1, "float32", None)
    metrics = events_of(run, "metric")
    assert [(event["step"], event["total"]) for event in metrics] == [(0, 2), (1, 2)]
    wanted = (
        "reward reward_std kl kl_k3 entropy clip_fraction ratio_mean approx_kl policy_loss "
        "value_loss explained_variance eos_rate length distinct_2 kl_coef seconds_generate "
        "seconds_score seconds_reference seconds_old seconds_update"
    )
    for name in wanted.split():
        assert isinstance(metrics[0][name], float), name
    samples = events_of(run, "sample")
    assert [event["step"] for event in samples] == [0, 1, 2]
    assert [one["prompt_id"] for one in samples[0]["samples"]] == ["p0", "p1"]
    assert report["steps"] == 2
    assert report["episodes"] == 16
    assert not verify_manifest(run / "out")
    assert json.loads((run / "out" / "report.json").read_text()) == report
    assert "KL from the reference" in (run / "out" / "README.md").read_text()


def test_the_rates_fall_in_a_line_to_nothing_behind_the_last_step() -> None:
    """Peaks of .8 and 4: a quarter less of them at each of four steps."""
    policy, critic = torch.nn.Linear(1, 1), critics.Critic(torch.nn.Linear(1, 1))
    groups = [{"params": list(policy.parameters())}, {"params": list(critic.head.parameters())}]
    optimizer = torch.optim.Adam(groups)
    learner = ppo.Learner(dict(policy.named_parameters()), critic, optimizer, 0.0, {})

    def rates(schedule: str) -> list[tuple[float, float, float]]:
        config = ppo.PPOConfig(steps=4, lr=0.8, critic_lr=4.0, lr_schedule=schedule)
        told = [
            (ppo.set_rates(learner, config, step), *(one["lr"] for one in optimizer.param_groups))
            for step in range(4)
        ]
        return [pytest.approx(one) for one in told]

    assert rates("linear") == [(0.8, 0.8, 4.0), (0.6, 0.6, 3.0), (0.4, 0.4, 2.0), (0.2, 0.2, 1.0)]
    assert rates("constant") == [(0.8, 0.8, 4.0)] * 4


def test_the_rate_of_a_step_is_the_one_that_it_learns_at(models: Path, tmp_path: Path) -> None:
    after: dict[tuple[str, int], dict[str, torch.Tensor]] = {}
    for schedule, second in (("linear", 5e-4), ("constant", 1e-3)):
        run = make_run(tmp_path / schedule, models, steps=2, lr=1e-3, lr_schedule=schedule)
        run_here(run)
        assert [event["lr"] for event in events_of(run, "metric")] == [1e-3, second]
        for step in (1, 2):
            path = run / "checkpoints" / f"step_{step}"
            after[schedule, step] = checkpoints.load(path).tensors
    for name, value in after["linear", 1].items():
        assert torch.equal(value, after["constant", 1][name])  # at the first step it is the peak
        if name.startswith(("policy.", "critic.")):
            moved = [after[way, 2][name] - value for way in ("linear", "constant")]
            assert 0 < float(moved[0].norm()) < 0.75 * float(moved[1].norm()), name


def test_the_fixed_prompts_are_answered_only_in_the_steps_that_show_them(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    roll_out = episodes.roll_out

    def count(*rest: Any) -> Any:
        rollout = roll_out(*rest)
        written.append(len(rollout.answers))
        return rollout

    monkeypatch.setattr(ppo, "roll_out", count)
    run = make_run(tmp_path / "run", models, steps=4, sample_every=3)
    run_here(run)
    assert written == [8 + 2, 8, 8, 8 + 2, 8 + 2]  # the last one measures what was learned
    assert [event["step"] for event in events_of(run, "sample")] == [0, 3, 4]


def test_a_policy_without_chat_template_gets_the_one_it_was_asked_with(
    models: Path, tmp_path: Path
) -> None:
    for name in ("policy", "reward", "prompts.jsonl"):
        (tmp_path / name).symlink_to(models / name)
    (tmp_path / "policy").unlink()
    shutil.copytree(models / "policy", tmp_path / "policy")
    bare = tiny_tokenizer()
    bare.chat_template = None
    bare.save_pretrained(str(tmp_path / "policy"))
    (tmp_path / "policy" / "chat_template.jinja").unlink()
    run = make_run(tmp_path / "run", tmp_path, steps=1)
    run_here(run)
    turns = [{"role": "user", "content": "I like tea"}]
    saved = AutoTokenizer.from_pretrained(str(run / "out"))
    found = saved.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    assert found == chat_ids(bare, turns)


def test_every_adapter_weight_moves_and_the_base_stays(models: Path, tmp_path: Path) -> None:
    run_here(make_run(tmp_path / "run", models, steps=1))
    before, after = (
        checkpoints.load(tmp_path / "run" / "checkpoints" / f"step_{step}").tensors
        for step in _first_and_last(tmp_path, models)
    )
    learning = {name for name in after if name.startswith(("policy.", "critic."))}
    assert len(learning) == 2 * 7 * 2 + 2  # A and B on 7 linear layers in 2 layers, and the critic
    assert {name for name in learning if not torch.equal(before[name], after[name])} == learning
    assert not [name for name in after if "base_layer" in name]


def _first_and_last(tmp_path: Path, models: Path) -> tuple[int, int]:
    """Leave a checkpoint of the state before the first step beside the one after it."""
    other = make_run(tmp_path / "first", models, steps=1)
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        run_here(other, stop)
    source = other / "checkpoints" / "step_0"
    shutil.copytree(source, tmp_path / "run" / "checkpoints" / "step_0")
    return 0, 1


def test_three_stopped_and_three_more_are_six_straight(models: Path, tmp_path: Path) -> None:
    straight = make_run(tmp_path / "straight", models)
    assert start_process(straight).wait(WAIT) == FINISHED
    halved = make_run(tmp_path / "halved", models)
    process = start_process(halved)
    wait_for_step(halved, process, 3)
    process.send_signal(signal.SIGTERM)
    assert process.wait(WAIT) == STOPPED
    assert events_of(halved, "stopped")[-1]["message"].startswith("Stopped after ")
    assert not (halved / "out").exists()
    assert start_process(halved).wait(WAIT) == FINISHED
    assert events_of(halved, "started")[1]["resumed_from"] >= 3
    assert events_of(halved, "started")[1]["attempt"] == 2
    assert hashes(halved / "out") == hashes(straight / "out")


def test_a_killed_trainer_goes_on_to_the_same_weights(models: Path, tmp_path: Path) -> None:
    config = {"steps": 4, "episodes_per_step": 32, "checkpoint_every": 1}
    calm = make_run(tmp_path / "calm", models, **config)
    run_here(calm)
    killed = make_run(tmp_path / "killed", models, **config)
    process = start_process(killed)
    wait_for_step(killed, process, 2)
    process.kill()
    assert process.wait(WAIT) == -signal.SIGKILL
    assert not events_of(killed, "finished")
    with (killed / "events.jsonl").open("a") as stream:
        stream.write('{"t": 17')  # the line that it was writing
    assert start_process(killed).wait(WAIT) == FINISHED
    assert hashes(killed / "out") == hashes(calm / "out")
    # and a third start finds everything done
    before = (killed / "events.jsonl").read_bytes()
    assert start_process(killed).wait(WAIT) == FINISHED
    assert (killed / "events.jsonl").read_bytes() == before


def test_stopping_between_rare_checkpoints_loses_one_step_at_most(
    models: Path, tmp_path: Path
) -> None:
    straight = make_run(tmp_path / "straight", models, checkpoint_every=100)
    run_here(straight)
    halved = make_run(tmp_path / "halved", models, checkpoint_every=100)

    class AtStepTwo(threading.Event):
        def is_set(self) -> bool:
            return len(events_of(halved, "metric")) == 2

    with pytest.raises(Stopped, match="Stopped after 2 of 6 steps"):
        run_here(halved, AtStepTwo())
    run_here(halved)
    assert events_of(halved, "started")[1]["resumed_from"] == 2
    assert hashes(halved / "out") == hashes(straight / "out")


def test_it_goes_back_when_the_kl_runs_away(models: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", models, lr=5e-2, kl_budget=0.5, episodes_per_step=16)
    report = run_here(run)
    assert "over the budget of 0.5" in report["stopped_early"]
    assert 1 <= report["steps"] <= 6
    assert report["kl"] <= 0.5
    assert report["kl"] == report["history"][-1]["kl"]
    assert "kl_budget" in {event["code"] for event in events_of(run, "alert")}


def test_an_adaptive_weight_grows_while_the_kl_is_too_high(models: Path, tmp_path: Path) -> None:
    run = make_run(
        tmp_path / "run", models, lr=2e-2, kl_control="adaptive", kl_target=0.01, kl_horizon=100,
        steps=3, kl_budget=0.0,
    )  # fmt: skip
    history = run_here(run)["history"]
    # step 0 measures KL 0: error −0.2, 8 of 100 episodes; the next ones are far over the target
    assert history[1]["kl_coef"] == pytest.approx(0.05 * (1 - 0.2 * 0.08))
    assert history[2]["kl_coef"] == pytest.approx(history[1]["kl_coef"] * (1 + 0.2 * 0.08))


def test_a_prompt_without_room_for_its_answer_is_named(models: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", models, max_new_tokens=125)
    with pytest.raises(RunError, match=r"The prompt “p0” has 5 tokens, which with 126 new ones"):
        run_here(run)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"config": {"stepz": 1}}, "unknown setting “stepz”"),
        ({"config": {"steps": 0}}, "config.steps of stage “ppo” is 0; give 1 or more"),
        ({"inputs": {}}, "misses the input policy, reward, prompts"),
        ({"inputs": {"policy": "none", "reward": "none", "prompts": "p"}}, "“none” was not found"),
    ],
)
def test_a_wrong_spec_fails_with_one_sentence(
    models: Path, tmp_path: Path, spec: dict[str, Any], sentence: str
) -> None:
    run = make_run(tmp_path / "run", models)
    body = json.loads((run / "spec.json").read_text())
    (run / "spec.json").write_text(json.dumps(body | spec))
    process = start_process(run)
    assert process.wait(WAIT) == FAILED
    (failed,) = events_of(run, "failed")
    assert sentence in failed["message"]
    assert sentence in (run / "output.log").read_text()
    assert "Traceback" not in failed["message"]


def test_prompts_come_in_shuffled_passes() -> None:
    config = ppo.PPOConfig(episodes_per_step=6, answers_per_prompt=2)
    chosen = [index for step in range(4) for index in episodes.choose_prompts(6, config, 0, step)]
    assert sorted(chosen[:6]) == sorted(chosen[6:]) == list(range(6))
    assert chosen[:6] != chosen[6:]


def test_minibatches_weigh_tokens_equally(models: Path, tmp_path: Path) -> None:
    """The same steps from many small micro-batches and from few large ones."""
    found, norms = [], []
    for name, budget in (("small", 20), ("large", 4096)):
        run = make_run(
            tmp_path / name, models, steps=1, epochs=1, token_budget=budget, grad_clip=0.0,
            episodes_per_step=32,
        )  # fmt: skip
        run_here(run)
        found.append(gradients(run))
        norms.append([event["grad_norm"] for event in events_of(run, "metric")])
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)
    same_gradients(*found)  # the means over both minibatches


def test_a_steps_passes_end_when_the_policy_has_moved_far_enough(
    models: Path, tmp_path: Path
) -> None:
    """Two passes over two minibatches. At the first update the policy is the one that wrote: only
    the second one can find it elsewhere, and is the last where the slightest distance is too far.
    """
    updates = {}
    for target in (0.0, 1e-9, 1e9):
        run = make_run(
            tmp_path / str(target), models, steps=1, episodes_per_step=32, target_kl=target
        )
        run_here(run)
        (event,) = events_of(run, "metric")
        updates[target] = event["updates"]
    assert updates == {0.0: 4, 1e-9: 2, 1e9: 4}


def test_a_gradient_is_cut_to_the_length_that_was_asked_for(models: Path, tmp_path: Path) -> None:
    run = make_run(
        tmp_path / "run", models, steps=1, episodes_per_step=32, epochs=1, minibatches=1,
        grad_clip=0.01,
    )  # fmt: skip
    run_here(run)
    (event,) = events_of(run, "metric")
    assert event["grad_norm"] > 0.1  # before it is cut
    tensors = checkpoints.load(run / "checkpoints" / "step_1").tensors
    count = sum(name.startswith("policy.") for name in tensors)
    means = [tensors[f"optimizer.{n}.exp_avg"].flatten() for n in range(count)]
    # Adam's mean of one gradient is a tenth of it.
    assert float(torch.cat(means).norm()) == pytest.approx(0.001, rel=1e-3)


def test_the_score_is_bounded_and_pays_for_missing_ends() -> None:
    config = ppo.PPOConfig(score_clip=5.0, missing_eos_penalty=1.0)
    sampled = [Sampled(0, n, 0, [7], [-1.0], finished) for n, finished in enumerate((True, False))]
    empty = torch.zeros(2, 1)
    rollout = episodes.Rollout(
        sampled, [], empty.bool(), empty, empty, empty, torch.tensor([9.0, 2.0]), empty, 0.0
    )
    assert ppo.final_score(rollout, config).tolist() == [5.0, 1.0]


def test_generate_writes_the_contract_and_resumes(models: Path, tmp_path: Path) -> None:
    def run(name: str, stop_after: int | None = None) -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        inputs = {"policy": str(models / "policy"), "prompts": str(models / "prompts.jsonl")}
        config = {"answers": 2, "max_new_tokens": 5, "batch_size": 2, "threads": 1}
        spec = {"stage": "generate", "seed": 1, "config": config, "inputs": inputs}
        (folder / "spec.json").write_text(json.dumps(spec))
        events = EventWriter(folder)
        context = RunContext(folder, load_spec(folder), events, Heartbeat(events))
        if stop_after is not None:
            context.stop = _AfterMetrics(folder, stop_after)
        generate.run(context)
        return folder

    class _AfterMetrics(threading.Event):
        def __init__(self, folder: Path, count: int) -> None:
            super().__init__()
            self.folder, self.count = folder, count

        def is_set(self) -> bool:
            return len(events_of(self.folder, "metric")) >= self.count

    straight = run("straight")
    with pytest.raises(Stopped, match="Stopped after 4 of 8 prompts"):
        run("halved", stop_after=1)
    halved = run("halved")
    assert hashes(halved / "out") == hashes(straight / "out")
    body = (straight / "out" / "answers.jsonl").read_text("utf-8")
    lines = [json.loads(line) for line in body.splitlines()]
    assert [line["id"] for line in lines] == [f"p{p}-{n}" for p in range(8) for n in range(2)]
    assert {"id", "prompt_id", "prompt", "text", "logprob", "tokens", "finished"} <= set(lines[0])
    assert all(line["logprob"] < 0 < line["tokens"] <= 5 for line in lines)
    assert all("<end>" not in line["text"] for line in lines)


def test_kl_of_a_policy_with_itself_is_nothing() -> None:
    logprob = torch.randn(3, 4)
    mask = torch.ones(3, 4, dtype=torch.bool)
    assert not rewards.kl_k1(logprob, logprob, mask).any()
    assert not rewards.kl_k3(logprob, logprob, mask).any()


def test_the_critic_begins_on_the_scale_of_the_scores() -> None:
    """Values 0, 1, 2, 3 and scores 1, 1, 5, 5 of two answers of two tokens each.

    Slope = Σ(v - 1.5)(s - 3) / Σ(v - 1.5)² = (3 + 1 + 1 + 3) / 5 = 1.6, offset = 3 - 1.6·1.5 = 0.6.
    """
    head = torch.nn.Linear(1, 1)
    with torch.no_grad():
        head.weight.fill_(1.0)
        head.bias.fill_(-10.0)
    features = torch.tensor([[[10.0], [11.0]], [[12.0], [13.0]]])
    mask = torch.ones(2, 2, dtype=torch.bool)
    batch = Batch(*[torch.zeros(0)] * 5, mask, torch.zeros(0))
    micro = episodes.MicroBatch(torch.tensor([0, 1]), batch, batch)
    empty = torch.zeros(2, 2)
    rollout = episodes.Rollout(
        [], [[micro]], mask, empty, empty, empty, torch.tensor([1.0, 5.0]), features, 0.0
    )
    critic = critics.Critic(head)
    critics.calibrate(critic, rollout)
    torch.testing.assert_close(critic.all_values(rollout), torch.tensor([[0.6, 2.2], [3.8, 5.4]]))


# what each setting does, worked by hand ---------------------------------------------------------


class Step(NamedTuple):
    """One answer of two tokens, padded to three, with a critic that says what the states are."""

    learner: ppo.Learner
    rollout: episodes.Rollout
    micro: episodes.MicroBatch


def a_step(values: tuple[float, float], kl: tuple[float, float] = (0.0, 0.0)) -> Step:
    """Score 2, log-probabilities `kl` where the reference has 0, β ½; 7 and 9 stand on padding."""
    head = torch.nn.Linear(1, 1)
    with torch.no_grad():
        head.weight.fill_(1.0)
        head.bias.fill_(0.0)
    policy = torch.nn.Linear(2, 1, bias=False)
    learner = ppo.Learner(
        dict(policy.named_parameters()), critics.Critic(head), torch.optim.SGD([head.weight]),
        0.5, {},
    )  # fmt: skip
    mask = torch.tensor([[True, True, False]])
    batch = Batch(*[torch.zeros(0)] * 5, mask, torch.zeros(0))
    micro = episodes.MicroBatch(torch.tensor([0]), batch, batch)
    rollout = episodes.Rollout(
        [Sampled(0, 0, 0, [7, 1], [-1.0, -1.0], True)], [[micro]], mask,
        torch.tensor([[*kl, 9.0]]), torch.zeros(1, 3), torch.zeros(1, 3), torch.tensor([2.0]),
        torch.tensor([[*values, 7.0]])[..., None], 0.0,
    )  # fmt: skip
    return Step(learner, rollout, micro)


@pytest.mark.parametrize(
    ("settings", "advantages", "returns"),
    [
        # rewards −½·0.2 and 2 − ½·0.4, values 1 and 3: what follows is 1.7 and 1.8
        ({}, (0.7, -1.2), (1.7, 1.8)),
        # δ = −0.1 + ½·3 − 1 = 0.4, and ½ of −1.2
        ({"gamma": 0.5}, (-0.2, -1.2), (0.8, 1.8)),
        # δ = −0.1 + 3 − 1 = 1.9, and ½ of −1.2
        ({"lam": 0.5}, (1.3, -1.2), (2.3, 1.8)),
        # 0.95 above and below their mean of −0.25; what the critic learns stays
        ({"whiten": True}, (1.0, -1.0), (1.7, 1.8)),
        # x²/2 is 0.02 and 0.08: rewards −0.01 and 1.96
        ({"kl_estimator": "k2"}, (0.95, -1.04), (1.95, 1.96)),
        # e^(−x) − 1 + x is 0.018731 and 0.070320: rewards −0.009365 and 1.964840
        ({"kl_estimator": "k3"}, (0.955475, -1.035160), (1.955475, 1.964840)),
        # a score of 1: rewards −0.1 and 0.8
        ({"score_clip": 1.0}, (-0.3, -2.2), (0.7, 0.8)),
    ],
    ids=str,
)
def test_what_a_step_steers_to_follows_the_settings(
    settings: dict[str, Any], advantages: tuple[float, ...], returns: tuple[float, ...]
) -> None:
    learner, rollout, _ = a_step((1.0, 3.0), kl=(0.2, 0.4))
    plain: dict[str, Any] = {"gamma": 1.0, "lam": 1.0, "whiten": False}
    found = ppo.targets_of(learner, rollout, ppo.PPOConfig(**(plain | settings)))
    wanted = [(1.0, 3.0, 0.0), (*advantages, 0.0), (*returns, 0.0)]
    torch.testing.assert_close(torch.cat(found), torch.tensor(wanted), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("clip", "loss", "clipped", "gradient"),
    [
        # −min(2·1.5, 2·1.2) and −min(−4·½, −4·0.8): both have gone as far as they may
        (0.2, -2.4 + 3.2, 2, (0.0, 0.0)),
        # −2·1.5 and 4·½, both with slope: that of a ratio is the ratio
        (0.6, -3.0 + 2.0, 0, (-3.0 / 8, 2.0 / 8)),
    ],
)
def test_a_policy_learns_within_the_clip(
    clip: float, loss: float, clipped: int, gradient: tuple[float, float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Ratios 1½ and ½ with advantages 2 and −4, in a minibatch of eight tokens."""
    _, rollout, micro = a_step((0.0, 0.0))
    logprob = torch.tensor([[math.log(1.5), math.log(0.5), 5.0]], requires_grad=True)

    def response_logprobs(policy: Any, batch: Batch, temperature: float) -> tuple[Any, None]:
        assert (policy, temperature) == ("policy", 0.7)
        return logprob, None

    monkeypatch.setattr(ppo.modeling, "response_logprobs", response_logprobs)
    targets = ppo.Targets(torch.zeros(1, 3), torch.tensor([[2.0, -4.0, 9.0]]), torch.zeros(1, 3))
    config = ppo.PPOConfig(clip=clip, temperature=0.7)
    actors: Any = SimpleNamespace(policy="policy")
    found = ppo.policy_backward(actors, rollout, micro, targets, 8, config)
    assert found.loss.item() == pytest.approx(loss, abs=1e-6)
    assert int(found.clipped) == clipped
    assert logprob.grad is not None
    assert logprob.grad.tolist() == [pytest.approx([*gradient, 0.0], abs=1e-6)]
    # While the critic warms up the policy is the one that wrote: −2 + 4, and nothing is learned.
    logprob.grad = None
    still = ppo.policy_backward(None, rollout, micro, targets, 8, config)
    assert (still.loss.item(), int(still.clipped), logprob.grad) == (2.0, 0, None)


@pytest.mark.parametrize(
    ("settings", "loss", "weight", "bias"),
    [
        # ½ (1½ − 4)² + ½ (5 − 2)²: the first value has moved as far as it may, the second learns
        ({"value_clip": 0.5, "vf_coef": 0.1}, 7.625, 5 * 3 / 40, 3 / 40),
        # ½ (2 − 4)² + ½ (5 − 2)²: both learn
        ({"value_clip": 2.0, "vf_coef": 0.1}, 6.5, (5 * 3 - 2 * 2) / 40, (3 - 2) / 40),
        ({"value_clip": 2.0, "vf_coef": 0.5}, 6.5, (5 * 3 - 2 * 2) / 8, (3 - 2) / 8),
    ],
    ids=str,
)
def test_a_critic_learns_within_its_clip_and_by_its_weight(
    settings: dict[str, Any], loss: float, weight: float, bias: float
) -> None:
    """Values 2 and 5, before that 1 and 5, returns 4 and 2, in a minibatch of four tokens."""
    learner, rollout, micro = a_step((2.0, 5.0))
    targets = ppo.Targets(
        torch.tensor([[1.0, 5.0, 9.0]]), torch.zeros(1, 3), torch.tensor([[4.0, 2.0, 9.0]])
    )
    config = ppo.PPOConfig(**settings)
    found = ppo.critic_backward(learner.critic, rollout, micro, targets, 4, config)
    assert found.item() == pytest.approx(loss)
    slopes = [
        one.grad.item() for one in learner.critic.parameters().values() if one.grad is not None
    ]
    assert slopes == pytest.approx([weight, bias])


@pytest.mark.parametrize(
    ("most", "policy", "critic"),
    [(0.0, [3.0, 4.0], [6.0, 8.0]), (7.0, [3.0, 4.0], [4.2, 5.6]), (1.0, [0.6, 0.8], [0.6, 0.8])],
)
def test_policy_and_critic_are_clipped_apart(
    most: float, policy: list[float], critic: list[float]
) -> None:
    """Gradients of the norms 5 and 10; 0 leaves them as they are."""
    learner, _, _ = a_step((0.0, 0.0))
    (weights,) = learner.weights.values()
    head = learner.critic.head
    weights.grad = torch.tensor([[3.0, 4.0]])
    head.weight.grad, head.bias.grad = torch.tensor([[6.0]]), torch.tensor([8.0])
    assert ppo.clip_gradients(learner, most) == pytest.approx(5.0)
    assert weights.grad.tolist() == [pytest.approx(policy, abs=1e-5)]
    assert [head.weight.grad.item(), head.bias.grad.item()] == pytest.approx(critic, abs=1e-5)
