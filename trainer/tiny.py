"""A language model small enough for tests and demonstrations, made from nothing in about a minute.

A Llama of 1.5 million parameters learns to answer everyday questions ("How was the soup?") in one
or two sentences that are glad, plain or sad by chance. So a preference for glad answers has
something to choose from, and the whole loop, ranking to PPO, runs in two minutes on a laptop.

Choices
- All text is put together from the lists below, written for this purpose. No download.
- Byte-level BPE trained on that text: nearly every word is one token, yet any text can be read.
- Loss on the answer, its end and the reaction to it, not on the question.
- One seed decides everything; the result is the same on the same machine.
Not here: any knowledge. It talks about 48 topics and nothing else.
"""

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from trainer.types import IGNORED

USER, ASSISTANT, END, PAD = "<|user|>", "<|assistant|>", "<|end|>", "<|pad|>"
# Behind an answer's end the user goes on at once, without a mark of its own: so the state at the
# end of an answer foretells the user's reaction, and a reward model, which reads just there, finds
# something to learn from. (With a mark behind every end, rewards stayed at chance.)
TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "{{ '<|assistant|>' + message['content'] + '<|end|>' }}"
    "{% elif loop.first or messages[loop.index0 - 1]['role'] != 'assistant' %}"
    "{{ '<|user|>' + message['content'] }}"
    "{% else %}{{ message['content'] }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
VOCABULARY = 1024
STEPS, BATCH, PEAK_LR, WARMUP = 240, 48, 3e-3, 20

FORMS = (
    "How was the {}?",
    "What did you think of the {}?",
    "Tell me about the {}.",
    "Did you like the {}?",
    "How do you feel about the {}?",
    "What can you say about the {}?",
)
# topics, and what one may remark on, by kind
KINDS: dict[str, tuple[str, str]] = {
    "food": (
        "soup cake bread salad breakfast dinner coffee tea pizza rice pie fish",
        "taste smell colour first bite sauce portion",
    ),
    "place": (
        "park beach garden museum hotel library market city lake station school village",
        "view air street staff path building",
    ),
    "event": (
        "picnic concert wedding game meeting lesson trip walk film show dance visit",
        "music mood start end crowd evening",
    ),
    "thing": (
        "book song phone car jacket letter painting chair bike lamp story present",
        "look price sound size idea shape",
    ),
}
# Three moods. Sentiment lexica know the glad and the sad words and have nothing on the plain ones.
ADJECTIVES = {
    "glad": "great wonderful lovely excellent perfect beautiful delightful amazing good brilliant "
    "charming fantastic pleasant superb nice",
    "plain": "usual plain small simple common regular typical average standard medium ordinary "
    "normal familiar moderate unremarkable",
    "sad": "terrible awful horrible bad ugly dreadful poor boring disappointing annoying miserable "
    "nasty unpleasant sad painful",
}
FEELINGS = {
    "glad": "loved enjoyed liked adored",
    "plain": "saw noticed found knew",
    "sad": "hated disliked feared dreaded",
}
REMARKS = {
    "glad": (
        "It made me happy.",
        "Everyone was delighted too.",
        "I smiled the whole time.",
        "We had so much fun.",
        "I am glad and thankful.",
        "That was the best part of my day.",
    ),
    "plain": (
        "It was the same as before.",
        "Everyone was there too.",
        "It took about one hour.",
        "We stayed until six.",
        "I will tell you more later.",
        "That was in the middle of my day.",
    ),
    "sad": (
        "It made me angry.",
        "Everyone was upset too.",
        "I cried the whole time.",
        "We had so much trouble.",
        "I am sorry and disappointed.",
        "That was the worst part of my day.",
    ),
}
REACTIONS = {
    "glad": ("How nice!", "Wonderful!", "Good for you!"),
    "plain": ("I see.", "All right.", "Is that so?"),
    "sad": ("Oh no!", "How sad!", "Poor you!"),
}
MOODS = tuple(ADJECTIVES)


def prompts() -> list[str]:
    """All 288 questions, mixed, always in the same order."""
    topics = [topic for words, _ in KINDS.values() for topic in words.split()]
    questions = [form.format(topic) for topic in topics for form in FORMS]
    random.Random(7).shuffle(questions)
    return questions


def dialogue(dice: random.Random) -> tuple[str, str, str]:
    """A question, an answer and the user's reaction.

    The mood of the answer's second sentence mostly follows the first; the reaction is to either.
    """
    words, parts = dice.choice(list(KINDS.values()))
    topic, part = dice.choice(words.split()), dice.choice(parts.split())
    mood = dice.choice(MOODS)
    later = mood if dice.random() < 0.75 else dice.choice(MOODS)
    answer, heard = _opening(dice, mood, topic), [mood]
    if dice.random() < 0.85:
        answer += " " + _second(dice, later, part)
        heard.append(later)
    reaction = dice.choice(REACTIONS[dice.choice(heard)])
    return dice.choice(FORMS).format(topic), answer, reaction


def _opening(dice: random.Random, mood: str, topic: str) -> str:
    first, second = dice.sample(ADJECTIVES[mood].split(), 2)
    return dice.choice(
        (
            f"The {topic} was {first}.",
            f"The {topic} was {first} and {second}.",
            f"I {dice.choice(FEELINGS[mood].split())} the {topic}.",
            f"It was {first}.",
            f"I thought it was {first}, even {second}.",
        )
    )


def _second(dice: random.Random, mood: str, part: str) -> str:
    first = dice.choice(ADJECTIVES[mood].split())
    return dice.choice(
        (
            f"The {part} was {first}.",
            f"I {dice.choice(FEELINGS[mood].split())} the {part}.",
            f"Even the {part} was {first}.",
            dice.choice(REMARKS[mood]),
            dice.choice(REMARKS[mood]),
        )
    )


def build(folder: Path, *, seed: int = 0, steps: int = STEPS) -> Path:
    """Train the model and write it to `folder` with tokenizer, card and prompts.jsonl."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(seed)
    model = _model(len(tokenizer), tokenizer, seed)
    _train(model, tokenizer, seed, steps)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    with (folder / "prompts.jsonl").open("w", encoding="utf-8") as lines:
        for number, text in enumerate(prompts(), start=1):
            prompt = [{"role": "user", "content": text}]
            lines.write(json.dumps({"id": f"tiny-{number:03d}", "prompt": prompt}) + "\n")
    (folder / "README.md").write_text(_card(model, steps), encoding="utf-8")
    return folder


def _tokenizer(seed: int) -> Any:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, END, USER, ASSISTANT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    dice = random.Random(seed)
    core.train_from_iterator((" ".join(dialogue(dice)) for _ in range(4000)), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[USER, ASSISTANT],
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def _model(vocabulary: int, tokenizer: Any, seed: int) -> Any:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        attention_dropout=0.0,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation="eager",
    )
    return LlamaForCausalLM(config)


def _train(model: Any, tokenizer: Any, seed: int, steps: int) -> None:
    """Next-token training on fresh dialogues; linear warm-up, then linear decay to 0."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=PEAK_LR, betas=(0.9, 0.95), weight_decay=0.0
    )
    model.train()
    for step, (ids, labels) in enumerate(_batches(tokenizer, seed, steps), start=1):
        rate = PEAK_LR * min(step / WARMUP, (steps + 1 - step) / max(1, steps - WARMUP))
        for group in optimizer.param_groups:
            group["lr"] = rate
        # Right padding behind causal attention needs no mask: no real token looks at it.
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 50 == 0 or step == steps:
            sys.stderr.write(f"tiny: step {step} of {steps}, loss {loss.item():.2f}\n")
    model.eval()


def _batches(tokenizer: Any, seed: int, steps: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(ids, labels), both (BATCH, t) long; labels are IGNORED on the question."""
    dice = random.Random(seed + 1)
    for _ in range(steps):
        rows = []
        for question, answer, reaction in (dialogue(dice) for _ in range(BATCH)):
            prompt = tokenizer(USER + question + ASSISTANT, add_special_tokens=False)["input_ids"]
            reply = tokenizer(answer + END + reaction, add_special_tokens=False)["input_ids"]
            rows.append((prompt, reply))
        longest = max(len(prompt) + len(reply) for prompt, reply in rows)
        ids = torch.full((BATCH, longest), tokenizer.pad_token_id, dtype=torch.long)
        labels = torch.full((BATCH, longest), IGNORED, dtype=torch.long)
        for row, (prompt, reply) in enumerate(rows):
            end = len(prompt) + len(reply)
            ids[row, :end] = torch.tensor(prompt + reply)
            labels[row, len(prompt) : end] = torch.tensor(reply)
        yield ids, labels


def _card(model: Any, steps: int) -> str:
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    return (
        "# tiny\n\n"
        f"A Llama of {millions:.1f} million parameters for tests and demonstrations, trained by\n"
        f"`trainer/tiny.py` for {steps} steps on sentences put together from that file's own word\n"
        "lists. It answers everyday questions in glad, plain or sad words by chance and knows\n"
        "nothing. `prompts.jsonl` holds the 288 questions that it understands.\n"
    )
