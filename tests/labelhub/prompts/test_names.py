"""Which texts tell who wrote them: what must be found, and what must be left alone."""

from __future__ import annotations

import pytest

from labelhub.projects.models import Project
from labelhub.prompts.actions import create_answer_set
from labelhub.prompts.rules import names_a_model
from tests.factories import make_prompt, make_version

TELL = [
    # it says what it is
    "As an AI language model, I cannot feel pain.",
    "As a large language model trained by others I have no opinion.",
    "I'm just an AI assistant, but let me try.",
    "I am a large language model.",
    "I am an AI and cannot taste soup.",
    "As an AI, I have no birthday.",
    "As an AI I do not sleep.",
    "I’m an AI.",
    # it says its name
    "I am Claude, and I am happy to help.",
    "My name is Gemini.",
    "Hello! I'm Llama. What can I do?",
    "You can call me Bard",
    "Sure, I am ChatGPT!",
    # it says who made it
    "I was trained by Google.",
    "I was originally developed by the research team at Meta.",
    "I am a helpful assistant created by Microsoft.",
    "I'm a language model, developed by Alibaba Cloud",
    # it names one
    "I was made by OpenAI.",
    "chatGPT would say the same.",
    "GPT-4o, GPT4 and gpt-3.5 differ.",
    "Ask Claude 3.5 Sonnet instead.",
    "Claude Opus wrote a poem.",
    "Llama 2 and LLaMA were released openly.",
    "Vicuna-13B was tuned on conversations.",
    "Mistral 7B is small; Mixtral is not.",
    "Falcon-40B needs much memory.",
    "Gemini 1.5 reads long texts, Gemini Pro too.",
    "Google's Gemini answers that.",
    "Use Qwen2.5 or DeepSeek-R1.",
    "SmolLM2 runs on a phone.",
    "Anthropic published a paper.",
    "It is based on PaLM.",
    "Write it with GitHub Copilot.",
    # Chinese
    "作为一个AI语言模型，我没有感情。",
    "作为人工智能，我不能替你决定。",
    "我是一个由百度训练的大型语言模型。",
    "我是AI助手，很高兴为您服务。",
    "我是由阿里云开发的语言模型。",
    "我由科大讯飞研发。",
    "我叫豆包，很高兴认识你。",
    "我是Kimi。",
    "我是智能助手。",
    "您好，我是一个大型语言模型。",
    "我是通义千问。",
    "可以试试文心一言或者讯飞星火。",
    "请用ChatGPT来写",
    "月之暗面发布了新模型。",
]

TELL_NOTHING = [
    # animals, people, winds, stars, words
    "The llama is a camelid, like the alpaca and the vicuna.",
    "I saw a llama 2 years ago.",
    "Llama 2 metres away from the fence!",
    "I'm a llama farmer.",
    "I am a Gemini, born in June.",
    "Gemini 8 was a mission of NASA.",
    "Claude Monet painted water lilies.",
    "Claude is my neighbour; Claude 2 was his nickname.",
    "Shakespeare is called the bard of Avon.",
    "The mistral blows down the valley of the Rhône.",
    "A falcon dives at 300 km/h.",
    "Gemma Arterton is an actress, and Kimi Räikkönen drove cars.",
    "It took me a day to grok it.",
    "A co-pilot sits on the right.",
    "The palm of the hand.",
    "The anthropic principle is debated, and so is the Anthropic Principle.",
    "Anthropical is no word.",
    "GPT is a partition table of a disk.",
    "The value of phi-3 is unknown; Phi is a Greek letter.",
    # makers that are known for other things
    "Android was developed by Google.",
    "I was told that Android was developed by Google.",
    "Use the meta tag; I use Google and Apple every day.",
    "I am a teacher trained by Microsoft.",
    # language models as a subject
    "A language model assigns probabilities to words.",
    "As a language model gets larger, its loss falls.",
    "I am writing about language models.",
    "I am an AI researcher.",
    "As an assistant professor, I teach.",
    "AI changes our work.",
    "I had a chatty GPS-4 in the car.",
    "The code opens: openair, reopenaid.",
    # Chinese
    "阿里巴巴与四十大盗是一个故事。",
    "早餐吃豆包和稀饭。",
    "我是豆包铺的老板。",
    "星火燎原，海纳百川。",
    "百度一下就知道了。",
    "作为人工智能领域的研究者，他很有名。",
    "我是语言模型研究员。",
    "作为助手，她帮了大忙。",
    "作为智能手机的用户，你应该小心。",
    "盘古开天地是神话。",
    "我由北京来。",
    "人工智能改变了世界。",
    "",
]


@pytest.mark.parametrize("text", TELL)
def test_a_text_that_tells_who_wrote_it_is_found(text: str) -> None:
    assert names_a_model(text)


@pytest.mark.parametrize("text", TELL_NOTHING)
def test_a_text_that_tells_nothing_is_left_alone(text: str) -> None:
    assert not names_a_model(text)


def test_it_is_found_anywhere_in_a_long_text() -> None:
    words = "It depends on many things. " * 2000
    assert names_a_model(words + "As an AI language model, I leave it to you." + words)
    assert not names_a_model(words)


@pytest.mark.django_db
def test_answers_that_tell_are_marked_when_they_are_stored(project: Project) -> None:
    version = make_version()
    texts = ["I am ChatGPT.", "The sky scatters blue light."]
    stored = create_answer_set(
        prompt=make_prompt(project), answers=[{"version": version, "text": one} for one in texts]
    )
    assert list(stored.answers.values_list("text", "names_model")) == [
        ("I am ChatGPT.", True),
        ("The sky scatters blue light.", False),
    ]
