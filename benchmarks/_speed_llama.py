"""The side of llama.cpp in `_speed_generate.py`; runs in its own environment, without torch.

Reads a job as JSON from standard input and prints the figures. Batched as llama.cpp's own parallel
examples do: a prompt is decoded once and its cache handed to the other answers; then every step
decodes one token of all sequences and llama.cpp's sampler draws each from the whole vocabulary.
"""

import argparse
import json
import resource
import sys
import time
from typing import Any

import llama_cpp as llama


class Writer:
    """One context over a model, for so many sequences at once."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.prompts, self.answers = job["prompts"], job["answers"]
        self.rows = len(self.prompts) * self.answers
        llama.llama_backend_init()
        path = job["model"].encode()
        self.model = llama.llama_model_load_from_file(path, llama.llama_model_default_params())
        settings = llama.llama_context_default_params()
        room = max(map(len, self.prompts)) + job["tokens"]
        settings.n_seq_max = self.rows
        settings.n_ctx = self.rows * -(-room // 32) * 32
        settings.n_batch = settings.n_ubatch = 1024
        settings.n_threads = settings.n_threads_batch = job["threads"]
        settings.kv_unified = job["unified"]
        self.context = llama.llama_init_from_model(self.model, settings)
        self.memory = llama.llama_get_memory(self.context)
        self.batch = llama.llama_batch_init(2048, 0, 1)

    def decode(self, rows: list[tuple[int, int, int, bool]]) -> None:
        """Put (token, place, sequence, whether its logits are wanted) through the model."""
        self.batch.n_tokens = len(rows)
        for n, (token, place, sequence, wanted) in enumerate(rows):
            self.batch.token[n], self.batch.pos[n] = token, place
            self.batch.n_seq_id[n], self.batch.seq_id[n][0] = 1, sequence
            self.batch.logits[n] = wanted
        if llama.llama_decode(self.context, self.batch):
            raise SystemExit("llama.cpp found no room for the batch")

    def read(self) -> list[int]:
        """Decode every prompt once; the place in the batch of each one's logits."""
        llama.llama_memory_clear(self.memory, True)
        rows, last = [], []
        for number, prompt in enumerate(self.prompts):
            end = len(prompt) - 1
            rows += [(token, n, number * self.answers, n == end) for n, token in enumerate(prompt)]
            last.append(len(rows) - 1)
        self.decode(rows)
        for number in range(len(self.prompts)):
            for n in range(1, self.answers):
                first = number * self.answers
                llama.llama_memory_seq_cp(self.memory, first, first + n, -1, -1)
        return last

    def likeliest(self) -> list[int]:
        """The likeliest next token of each prompt."""
        size = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(self.model))
        found = []
        for place in self.read():
            logits = llama.llama_get_logits_ith(self.context, place)[:size]
            found.append(max(range(size), key=logits.__getitem__))
        return found

    def write(self, tokens: int, seed: int) -> int:
        """Answers of so many tokens to every prompt; how many tokens were written."""
        last = self.read()
        samplers = []
        for row in range(self.rows):
            chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
            llama.llama_sampler_chain_add(
                chain, llama.llama_sampler_init_dist(seed * self.rows + row)
            )
            samplers.append(chain)
        places = [last[row // self.answers] for row in range(self.rows)]
        at = [len(self.prompts[row // self.answers]) for row in range(self.rows)]
        written = 0
        for step in range(tokens):
            drawn = [
                llama.llama_sampler_sample(chain, self.context, place)
                for chain, place in zip(samplers, places, strict=True)
            ]
            written += len(drawn)
            if step + 1 < tokens:
                self.decode([(token, at[row] + step, row, True) for row, token in enumerate(drawn)])
                places = list(range(self.rows))
        for chain in samplers:
            llama.llama_sampler_free(chain)
        return written


def main() -> None:
    """Do the job of standard input; with --check only tell each prompt's likeliest next token."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    job = json.load(sys.stdin)
    writer = Writer(job)
    if options.check:
        print(json.dumps(writer.likeliest()))
        return
    writer.write(4, job["seed"])
    wall, cpu = time.perf_counter(), time.process_time()
    units = writer.write(job["tokens"], job["seed"])
    print(json.dumps({
        "units": units, "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "version": llama.__version__,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
