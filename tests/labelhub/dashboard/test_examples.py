"""What a form shows as an example can be copied as it stands."""

from __future__ import annotations

import json
import re

import pytest
from django.utils import translation

from labelhub.dashboard.forms import ImportPromptsForm
from labelhub.dashboard.forms_gold import ImportGoldForm
from labelhub.dashboard.forms_runs import PairsForm


@pytest.mark.parametrize("language", ["en", "zh-hans"])
@pytest.mark.parametrize(
    ("form", "keys"),
    [
        (ImportPromptsForm, {"prompt"}),
        (ImportGoldForm, {"prompt", "answers", "ranks"}),
        (PairsForm, {"prompt", "answer"}),
    ],
)
def test_the_json_in_a_hint_is_json(form: type, keys: set[str], language: str) -> None:
    with translation.override(language):
        hint = str(form.base_fields["text"].help_text)  # type: ignore[attr-defined]
    found = re.search(r"\{.*\}", hint)
    assert found is not None
    assert set(json.loads(found[0])) == keys
