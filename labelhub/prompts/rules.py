"""What a conversation must look like, when two are the same, and how prompts are drawn. Pure.

Text is compared and kept in one form: NFC, \\n as line break, no blank space around it. So the same
question copied out of another program is recognised.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Message = dict[str, str]

ROLES = ("system", "user", "assistant")
MAX_MESSAGES = 100
MAX_CHARACTERS = 50_000


class BadMessages(ValueError):
    """These messages are no prompt. `reason` is a key of `prompts.actions.REASONS`."""

    def __init__(self, reason: str, **values: object) -> None:
        super().__init__(f"{reason} {values}")
        self.reason = reason
        self.values = values


def validate_messages(messages: object) -> list[Message]:
    """The messages in the form in which they are kept; raises BadMessages when they are no prompt.

    A prompt may begin with a system message; then the user and the assistant take turns, and the
    user has the last word.
    """
    if not isinstance(messages, list) or not messages:
        raise BadMessages("no_list")
    if len(messages) > MAX_MESSAGES:
        raise BadMessages("too_many", count=len(messages), limit=MAX_MESSAGES)
    cleaned = [_message(number, message) for number, message in enumerate(messages, start=1)]
    if sum(len(message["content"]) for message in cleaned) > MAX_CHARACTERS:
        raise BadMessages("too_long", limit=MAX_CHARACTERS)
    _check_turns(cleaned)
    return cleaned


def _message(number: int, message: object) -> Message:
    if not isinstance(message, Mapping):
        raise BadMessages("no_object", number=number)
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise BadMessages("role", number=number, role=str(role)[:40])
    if not isinstance(content, str) or not clean(content):
        raise BadMessages("empty", number=number)
    if not is_storable(content):
        raise BadMessages("characters", number=number)
    return {"role": str(role), "content": clean(content)}


def _check_turns(messages: Sequence[Message]) -> None:
    first = 1 if messages[0]["role"] == "system" else 0
    for at, message in enumerate(messages[first:]):
        wanted = ("user", "assistant")[at % 2]
        if message["role"] != wanted:
            raise BadMessages("turn", number=first + at + 1, role=message["role"], wanted=wanted)
    if messages[-1]["role"] != "user":
        raise BadMessages("last", role=messages[-1]["role"])


def clean(text: str) -> str:
    """NFC, \\n as line break, no blank space around."""
    return unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n")).strip()


def is_storable(text: str) -> bool:
    """Neither NUL (PostgreSQL keeps none) nor half of a surrogate pair (UTF-8 has none)."""
    return "\x00" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def storable(text: str) -> str:
    """A model may write anything; what cannot be kept becomes U+FFFD."""
    if is_storable(text):
        return text
    return "".join(one if is_storable(one) else "\ufffd" for one in text)


def canonical(messages: Iterable[Mapping[str, Any]]) -> str:
    """One text for one conversation, the same as the trainer's `prompt_hash` reads."""
    plain = [{"role": one["role"], "content": one["content"]} for one in messages]
    return json.dumps(plain, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def messages_hash(messages: Iterable[Mapping[str, Any]]) -> str:
    """SHA-256 of the canonical messages."""
    return text_hash(canonical(messages))


def text_hash(text: str) -> str:
    """SHA-256 of a text, as hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def draw(uses: Mapping[int, int], count: int, seed: int) -> list[int]:
    """Draw `count` prompts, those used least first, equals at random; fewer if there are fewer.

    `uses` says how often each prompt id was used. The same seed draws the same, whatever the
    order of `uses`.
    """
    return sorted(uses, key=lambda one: (uses[one], text_hash(f"{seed}:{one}")))[: max(0, count)]


# --- names that break blindness

# No Latin letter or digit around a name; a Chinese character may stand there.
_ALONE = r"(?<![A-Za-z0-9])(?:{})(?![A-Za-z0-9])"
_UNITS = r"(?!\s+(?:year|month|week|day|hour|minute|time|met|kilo|mile|f[oe]e?t))"

# Names that mean nothing else, however they are written.
_ANYWHERE = (
    r"(?:chat|instruct)[- ]?gpt", r"gpt[- ]?[2-5](?:\.\d|o\d?)?", r"gpt[- ]models?", r"open ?ai",
    r"deep ?mind", r"deep ?seek", r"qwen[-\d.]*", r"tongyi(?: qianwen)?", r"chatglm\d?", r"zhipu",
    r"ernie bot", r"wenxin yiyan", r"doubao", r"smollm\d?", r"mixtral", r"internlm\d?", r"baichuan",
    r"moonshot ai", r"kimi (?:chat|k\d)", r"stablelm", r"lmsys", r"bing chat", r"tencent hunyuan",
    r"(?:github|microsoft) copilot", r"google(?:['’]s)? (?:bard|gemini|gemma)",
    # A size in billions of weights makes a model of an animal.
    r"(?:llama|falcon|vicuna|alpaca|koala|mistral|gemma|dolly|pythia|bloom|opt|mpt|yi|phi)"
    r"(?:[- ][\d.]+)?[- ]\d+(?:\.\d+)?b",
)  # fmt: skip
# Names that are words, people or animals when they are written otherwise.
_CASED = (
    r"Anthropic(?! (?:[Pp]rinciple|[Bb]ias|[Rr]eason|[Aa]rgument))", r"PaLM", r"LaMDA", r"BLOOMZ",
    r"Claude(?:-\d| \d\.\d| (?:\d(?:\.\d)? )?(?:Opus|Sonnet|Haiku|Instant))", r"LLaMA",
    r"Gemini(?:-\d| \d\.\d| (?:Pro|Ultra|Nano|Flash|Advanced))", r"Gemma[- ]?[1-3]" + _UNITS,
    r"(?:Llama|LLAMA)[- ]?[1-4](?:\.\d)?" + _UNITS, r"Grok[- ]?[1-4]" + _UNITS, r"xAI", r"Meta AI",
    r"Google AI", r"Mistral (?:AI|Large|Medium|Small|Nemo)", r"Phi-[1-4](?:\.5)?[- ](?:mini|small)",
)  # fmt: skip
_CHINESE = (
    r"文心一言|文心大模型|通义千问|智谱(?:清言|AI)|讯飞星火|星火(?:认知)?大模型|腾讯混元|混元大模型"
    r"|盘古大模型|豆包大模型|月之暗面|深度求索|百川(?:智能|大模型)|零一万物|书生[·・]?浦语"
)

# Names that are something else too: they count where the text calls itself so.
_OWN_NAMES = (
    r"claude|gemini|bard|llama|gemma|mistral|falcon|copilot|bing|grok|kimi|ernie|vicuna|alpaca"
    r"|siri|alexa|cortana"
)
_OWN_NAMES_ZH = r"豆包|千问|通义|文心|星火|混元|盘古|元宝|小度|小艺|小冰"
_MAKERS = (
    r"google|meta|facebook|microsoft|alibaba|baidu|tencent|bytedance|huawei|amazon|apple|mistral"
    r"|cohere|hugging ?face|nvidia|ibm|zhipu"
)
_MAKERS_ZH = (
    r"谷歌|百度|阿里(?:巴巴|云)?|达摩院|腾讯|字节(?:跳动)?|华为|科大讯飞|智谱|微软|清华大学|商汤"
)
_MADE = r"(?:trained|developed|created|made|built|designed|fine-tuned|powered)"
_I = r"\bI(?: am|['’]m)"
_KIND = r"(?:language model|llm|ai (?:assistant|chatbot|model|system)|chatbot)"
_MUCH = r"(?:(?:large|big|small|powerful|helpful|ai|artificial intelligence|text-based)[ -])*"

_SELF = (
    rf"(?:{_I}|\bmy name is|\bcall me)\s+(?:{_OWN_NAMES})(?![\w-])",
    rf"{_I} (?:just |only )?an? {_MUCH}{_KIND}\b",
    rf"{_I} (?:just |only )?an ai(?=\s*(?:[.,;!?]|$)|\s+(?:and|so|that|which|{_MADE})\b)",
    rf"\bas an? {_MUCH}{_KIND}(?=\s*,|\s+I\b|\s+{_MADE} by)",
    r"\bas an ai\s*,?\s*(?:I|my)\b",
    rf"\bI (?:was|am|have been) (?:\w+ly )?{_MADE} by (?:[\w-]+ ){{0,5}}?(?:{_MAKERS})\b",
    rf"{_I} an? (?:[\w-]+ ){{0,4}}?(?:model|ai|assistant|chatbot|bot),? (?:that was |which was )?"
    rf"{_MADE} by (?:[\w-]+ ){{0,5}}?(?:{_MAKERS})\b",
    rf"我(?:是|叫|名叫|的名字是|的名字叫)\s*(?:{_OWN_NAMES_ZH}|{_OWN_NAMES})(?![\w-])",
    r"(?:作为|身为|我是|我只是)(?:一[个款名]|个)?(?:由[^，。！？\n]{1,12}的)?(?:大型|中文|\s)*"
    r"(?:(?:AI|人工智能)?\s*(?:语言模型|大模型|聊天机器人)|(?:AI|人工智能|智能)\s*(?:助手)?)"
    r"(?=[，,。.！!？?；;\s]|我|$)",
    rf"我是?由(?:{_MAKERS_ZH}|{_MAKERS})[^，。！？\n]{{0,12}}?"
    r"(?:开发|训练|研发|创建|创造|推出|设计|打造)",
)

_NAMED = re.compile("|".join(_ALONE.format(one) for one in _ANYWHERE), re.IGNORECASE)
_NAMED_CASED = re.compile("|".join([*(_ALONE.format(one) for one in _CASED), _CHINESE]))
_SPEAKS_OF_ITSELF = re.compile("|".join(_SELF), re.IGNORECASE)


def names_a_model(text: str) -> bool:
    """Whether a text tells which model wrote it, or may make its reader think so.

    It does where it speaks of itself as a language model, and where it names a language model or a
    company known for nothing else. A name that is also a word, a person or an animal (llama,
    Claude, Google, 豆包) counts only where the text calls itself so, or says who made it.
    """
    return any(one.search(text) for one in (_NAMED, _NAMED_CASED, _SPEAKS_OF_ITSELF))
