"""Measures the preparation of a large file of rows, beside `datasets` reading and TRL tokenizing the same file.

    python scripts/bench_data.py --json
    python scripts/bench_data.py --mb 5 --kinds text --vocabulary 2000      # in seconds

Writes one JSONL file a kind, of random words with the frequencies of a language, and trains a BPE tokenizer on it. Each
way is a process of its own, which imports what it needs before the clock starts:

tuner  `trainables.preparing.prepare_rows`: reads, checks, splits, tokenizes and stores the rows.
trl    `datasets.load_dataset("json")`, then `SFTTrainer._prepare_dataset`, which is what SFTTrainer's constructor
       does with it; `trl-N` with `dataset_num_proc=N`.

Prints the seconds, the peak memory of the process and all its children, the memory after the imports, and what was
made: rows, tokens, and tokens that are learned. These are compared, and a difference ends the run with an error.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

END = "<|end|>"
TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
WORDS = 30_000
EVERY_S = 0.05
"""Seconds between two looks at the memory."""


def words(seed: int) -> Callable[[int], str]:
    """Gives a function that draws a text of so many words; the n-th most frequent word is 1/n as frequent."""
    draw = random.Random(seed)
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    known = ["".join(draw.choices(letters, range(26, 0, -1), k=draw.randint(1, 11))) for _ in range(WORDS)]
    weights = [1 / (n + 1) for n in range(WORDS)]
    cumulated = [sum(weights[:1])]
    for weight in weights[1:]:
        cumulated.append(cumulated[-1] + weight)
    return lambda number: " ".join(draw.choices(known, cum_weights=cumulated, k=number)).capitalize() + "."


def rows(kind: str, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Rows of a kind, without end: 10 to 200 words a text, one to three questions a chat."""
    text, draw = words(seed), random.Random(seed + 1)
    while True:
        if kind == "text":
            yield {"text": text(draw.randint(20, 200))}
        elif kind == "completion":
            yield {"prompt": text(draw.randint(10, 60)) + "\n", "completion": text(draw.randint(10, 120))}
        else:
            turns = range(draw.randint(1, 3))
            yield {"messages": [
                {"role": role, "content": text(draw.randint(5, most))}
                for _ in turns for role, most in (("user", 40), ("assistant", 80))
            ]}  # fmt: skip


def write(file: Path, kind: str, size: int) -> int:
    """Writes rows until the file has `size` bytes; gives their number."""
    written = number = 0
    with file.open("w", encoding="utf-8") as out:
        for row in rows(kind):
            line = json.dumps(row) + "\n"
            out.write(line)
            written, number = written + len(line), number + 1
            if written >= size:
                return number
    raise AssertionError


def make_tokenizer(folder: Path, vocabulary: int) -> None:
    """Trains a byte-level BPE on 20,000 texts, and writes it with a chat template and a config.json."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    special = [END, "<|user|>", "<|assistant|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    made.train_from_iterator((row["text"] for row, _ in zip(rows("text", 7), range(20_000), strict=False)), trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, eos_token=END, pad_token=END)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    config = {"model_type": "llama", "vocab_size": len(tokenizer), "max_position_embeddings": 1 << 20}
    (folder / "config.json").write_text(json.dumps(config))


# --- the two ways, each in a process of its own


def tuner_way(file: Path, base: Path, scratch: Path, length: int) -> dict[str, Any]:
    """What tuner prepares."""
    from trainables import quiet

    quiet.before_imports()
    import datasets  # noqa: F401
    from transformers import PreTrainedTokenizerFast  # noqa: F401

    from trainables import preparing
    from trainables.settings import Settings

    given = {"model": {"model_name_or_path": str(base)}, "data": {"train": str(file), "max_length": length}}
    settings = Settings.model_validate(given)
    before, began = held(), time.perf_counter()
    made = preparing.prepare_rows(settings, scratch / "cache")
    seconds = time.perf_counter() - began
    sets = [made.facts[name] for name in ("train", "validation")]
    counts = {"rows": "rows", "tokens": "tokens", "learned": "label_tokens"}
    return {"seconds": seconds, "imported_bytes": before,
            **{name: sum(one[key] for one in sets) for name, key in counts.items()}}  # fmt: skip


def trl_way(file: Path, base: Path, scratch: Path, length: int, processes: int) -> dict[str, Any]:
    """What SFTTrainer prepares."""
    os.environ["HF_HOME"] = str(scratch / "home")
    import datasets
    import numpy
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer

    datasets.disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained(base)
    small = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    config = SFTConfig(
        str(scratch / "trainer"), max_length=length, dataset_num_proc=processes if processes > 1 else None,
        report_to=[], use_cpu=True, bf16=False, per_device_train_batch_size=1,
    )  # fmt: skip
    first = next(rows(file.stem))
    trainer = SFTTrainer(
        LlamaForCausalLM(small), config, train_dataset=datasets.Dataset.from_list([first]), processing_class=tokenizer
    )
    before, began = held(), time.perf_counter()
    found = datasets.load_dataset("json", data_files=str(file), split="train")
    made = trainer._prepare_dataset(found, tokenizer, config, False, None, "train")
    seconds = time.perf_counter() - began
    tokens = learned = 0
    for batch in made.with_format("arrow").iter(1000):
        labels = batch["labels"].combine_chunks()
        flat = labels.flatten().to_numpy()
        starts = labels.offsets.to_numpy()[:-1] - labels.offsets.to_numpy()[0]
        tokens += len(flat)
        learned += int(numpy.count_nonzero(flat != -100) - numpy.count_nonzero(flat[starts] != -100))
    return {"seconds": seconds, "imported_bytes": before, "rows": len(made), "tokens": tokens, "learned": learned}


def held() -> int:
    """Bytes of memory that this process holds."""
    import psutil

    return int(psutil.Process().memory_info().rss)


# --- measuring


def measure(way: str, file: Path, base: Path, scratch: Path, length: int) -> dict[str, Any]:
    """Runs a way in a process of its own; gives what it says, with the peak memory of the process and its children."""
    folder = scratch / f"{file.stem}-{way}"
    folder.mkdir()
    asked = [sys.executable, __file__, "--one", way, str(file), str(base), str(folder), str(length)]
    began = time.perf_counter()
    log = folder / "log"
    with log.open("w") as out, subprocess.Popen(
        asked, cwd=ROOT, stdout=subprocess.PIPE, stderr=out, text=True
    ) as process:  # fmt: skip
        peak = [0]
        watching = threading.Thread(target=_watch, args=(process, peak))
        watching.start()
        said, _ = process.communicate()
        watching.join()
    if process.returncode:
        raise SystemExit(f"{way} ended with code {process.returncode}:\n{log.read_text()[-3000:]}")
    return {"way": way, **json.loads(said.splitlines()[-1]), "peak_bytes": peak[0],
            "whole_s": time.perf_counter() - began}  # fmt: skip


def _watch(process: subprocess.Popen[str], peak: list[int]) -> None:
    """Keeps the largest sum of memory that a process and its children hold. Pages that they share count for each."""
    import psutil

    root = psutil.Process(process.pid)
    while process.poll() is None:
        total = 0
        try:
            for one in [root, *root.children(recursive=True)]:
                total += one.memory_info().rss
        except psutil.Error:  # one of them has ended meanwhile
            pass
        peak[0] = max(peak[0], total)
        time.sleep(EVERY_S)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mb", type=float, default=200, help="size of each file, in MB")
    parser.add_argument("--kinds", default="completion,chat,text")
    parser.add_argument("--ways", default="tuner,trl", help="tuner, trl, and trl-N for N processes")
    parser.add_argument("--vocabulary", type=int, default=32_000)
    parser.add_argument("--max-length", type=int, default=1024)
    parser.add_argument("--scratch", type=Path, help="an empty folder for files; default: a temporary one")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        way, file, base, folder, length = given.one[0], *map(Path, given.one[1:4]), int(given.one[4])
        number = int(way.partition("-")[2] or 1)
        found = tuner_way(file, base, folder, length) if way == "tuner" else trl_way(file, base, folder, length, number)
        print(json.dumps(found))
        return
    with tempfile.TemporaryDirectory(prefix="bench-", dir=given.scratch) as name:
        report(given, list(measured(given, Path(name))))


def measured(given: argparse.Namespace, scratch: Path) -> Iterator[dict[str, Any]]:
    """Every kind of file in every way."""
    base = scratch / "base"
    make_tokenizer(base, given.vocabulary)
    for kind in given.kinds.split(","):
        file = scratch / f"{kind}.jsonl"
        lines = write(file, kind, int(given.mb * 1e6))
        print(f"{kind}: {lines:,} rows, {file.stat().st_size / 1e6:.0f} MB", file=sys.stderr, flush=True)
        same = None
        for way in given.ways.split(","):
            found = {"kind": kind, **measure(way, file, base, scratch, given.max_length)}
            counts = {name: found[name] for name in ("rows", "tokens", "learned")}
            if counts != (same := same or counts):
                raise SystemExit(f"{kind}: {way} made {counts}, the first way {same}")
            print(
                f"{way:<8} {found['seconds']:>8.1f} s  peak {found['peak_bytes'] / 1e6:>6.0f} MB "
                f"({found['imported_bytes'] / 1e6:.0f} MB of it imports)  {found['rows']:,} rows, {found['tokens']:,} "
                f"tokens, {found['learned']:,} learned",
                file=sys.stderr, flush=True,
            )  # fmt: skip
            yield found
        file.unlink()


def report(given: argparse.Namespace, found: list[dict[str, Any]]) -> None:
    """Prints all of it as JSON."""
    if given.json:
        from tuner.results.versions import versions

        about = {"machine": f"{os.cpu_count()} {platform.machine()} cores", "versions": versions(),
                 "date": time.strftime("%Y-%m-%d")}  # fmt: skip
        settings = {name: str(value) for name, value in vars(given).items() if name not in ("json", "one")}
        print(json.dumps({"about": about, "settings": settings, "rows": found}))


if __name__ == "__main__":
    main()
