"""Markdown that a server and a browser may read differently, if they are not careful."""

from __future__ import annotations

NASTY = [
    "plain",
    "two\nlines and  two spaces\u00a0here",
    "*a* **b _c_** ~~d~~ `e < f && g`",
    "# Head\n\n> quote\n>\n> - one\n> - two\n\n1. x\n   1. y\n",
    "| a | b |\n|---|:-:|\n| 1 < 2 | `x|y` |\n",
    "```python\n\n\n  first = '<b>' # & after two empty lines\n```",
    "    indented\n\tcode",
    "&amp; &lt;b&gt; &nbsp; &copy; &#0; &#x110000; &#13; &quot; &notanentity; AT&T &para",
    '<script>alert(1)</script> <b title=">">no</b> <!-- c --> <![CDATA[x]]> <?php ?>',
    'a "quoted" link [x > y](https://e.example/?a=1&b="2"<3> "t")',
    "<https://e.example/?q=<i>>",
    "![alt <i>](x.png) and ![](y.png)",
    r"Euler: $e^{i\pi} + 1 = 0$, \(a<b\), $\text{a < b \& c}$",
    "$$\n\\begin{pmatrix} a & b \\\\ c & d \\end{pmatrix}\n$$\nafter",
    r"\[ \frac{1}{2 \] broken $\nosuch{x}$ and $5 and $10",
    "中文：“引号”，一二三。\n\n第二段，含 `代码` 与 $x^2$。",
    "emoji 👩\u200d👩\u200d👧 🇨🇳 and 𝒳 (two code units), e\u0301 \u202eright to left\u202c",
    "zero\u200bwidth, soft\u00adhyphen, form\x0cfeed, vertical\x0btab, \x07bell, \ufeffmark",
    "carriage\r\nreturns\rmixed",
    "nul \x00 and \ufffd",
    "\n\n   leading and trailing   \n\n",
    "- [ ] task\n- [x] done\n\n***\n\nend\\\nhard  \nbreak",
    "```html\n<pre>\nx</pre>\n<textarea>\n</textarea>\n```\n~~~unknown-language\n<&>\n~~~",
    "<table><tr><td>raw</table></p></div></article>",
    '```diff\n+ a\n- b\n```\n```json\n{"a": [1, null]}\n```',
    "```php\n<?php echo '</script>';\n```",
    "a" * 300 + "​" + "b" * 300,
]
