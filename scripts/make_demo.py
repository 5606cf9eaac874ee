"""Makes `tuner/demo`: a tiny real base model and a real fine-tuning set, both from Python's own standard library.

    python scripts/make_demo.py --out tuner/demo            # everything; minutes on a GPU, about an hour on two cores

The base is a Llama of about a million parameters, pre-trained on the library's source text with every docstring taken
out. The fine-tuning set is what was taken out: a function's source is the prompt, the first paragraph of its docstring
the completion. Modules are split into train, validation and test first; the base sees the train modules only.

`--stage data` needs no GPU and depends on the Python that runs it, whose library is the text. `--stage pretrain` reads
the corpus that `data` has written to `--work`. So the text can come from one machine and the training run on another.

More than 400 lines, because it is copied to a GPU machine and run there alone.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import lzma
import math
import platform
import random
import re
import shutil
import sysconfig
import textwrap
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SEED = 0
VOCABULARY = (
    2048  # the head scores every position on a CPU, so its cost grows with this; rows are a fifth longer at 1,024
)
END, PAD = "<|endoftext|>", "<|pad|>"

# Tests, bundled or generated text, tables, and two applications that are no library.
SKIPPED_FOLDERS = {
    *("test", "tests", "idlelib", "lib2to3", "site-packages", "dist-packages", "encodings", "ensurepip"),
    *("pydoc_data", "turtledemo", "lib-dynload", "__pycache__"),
}
# The PSF alone may not license a file that has a notice of its own, unless the notice says it was licensed to the PSF.
FOREIGN_NOTICE = re.compile(
    r"permission (to use|is hereby)|licensed under|redistribution and use|provided 'as-is'|python 2\.2 license",
    re.IGNORECASE,
)
PSF_NOTICE = re.compile(r"licensed\s+to\s+(the\s+)?PSF", re.IGNORECASE)

# Modules with similar code or docstrings stay in one split: a C module's Python twin, the compressors, the paths.
FAMILIES = {
    "compression": ("_compression", "bz2", "gzip", "lzma"),
    "paths": ("os", "ntpath", "posixpath", "genericpath", "nturl2path", "pathlib"),
    "sre": ("re", "sre_compile", "sre_constants", "sre_parse"),
    "profilers": ("profile", "cProfile", "pstats"),
    "pickles": ("pickle", "pickletools", "copyreg", "_compat_pickle"),
    "sounds": ("aifc", "sunau", "wave", "chunk", "sndhdr"),
    "mails": ("email", "mailbox", "smtplib", "smtpd", "poplib", "imaplib", "nntplib"),
    "io": ("io", "_pyio", "codecs"),
    "decimal": ("decimal", "_pydecimal", "numbers", "fractions"),
    "collections": ("collections", "_collections_abc", "_weakrefset", "weakref"),
    "time": ("datetime", "_strptime", "calendar", "zoneinfo"),
    "threads": ("threading", "_threading_local", "concurrent", "multiprocessing", "queue"),
    "importing": ("importlib", "imp", "pkgutil", "zipimport", "modulefinder", "runpy"),
    "building": ("distutils", "sysconfig", "_osx_support", "_aix_support", "_bootsubprocess"),
}
FAMILY = {module: family for family, modules in FAMILIES.items() for module in modules}
LARGEST_HELD_OUT = 40  # rows: a larger family would be a quarter of the validation set, so it goes to train

# Lengths in tokens, the end token included. Rows are short so that a trial takes seconds on one core.
ROW_TOKENS = (16, 64)
COMPLETION_TOKENS = (4, 40)
HELD_OUT_ROWS = 128  # validation, and as many for test: ten evaluations cost a third of a trial's time
NEAR = 0.7  # sources, or docstrings, that share this much of their words count as copies


@dataclass(frozen=True)
class Row:
    """One function: its module and name, its source without the docstring, the docstring's first paragraph."""

    module: str
    name: str
    prompt: str
    completion: str
    body: str  # the syntax tree without the function's own name, to find copies


def library_files(library: Path) -> Iterator[tuple[str, str]]:
    """The library's files as (path, text): nothing bundled, generated, or under a licence of its own."""
    for path in sorted(library.rglob("*.py")):
        relative = path.relative_to(library)
        if SKIPPED_FOLDERS & set(relative.parts) or relative.parts[0].startswith(("_sysconfigdata", "config-")):
            continue
        text = path.read_text("utf-8")
        if not FOREIGN_NOTICE.search(text) or PSF_NOTICE.search(text):
            yield relative.as_posix(), text


def without_docstrings(text: str) -> str:
    """The same source with every bare string statement cut out; a body that held nothing else becomes `pass`."""
    source, starts = text.encode(), [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line.encode()))
    cuts: list[tuple[int, int, bytes]] = []
    for node in ast.walk(ast.parse(text)):
        for field in ("body", "orelse", "finalbody"):
            body = getattr(node, field, None)
            if not isinstance(body, list):
                continue
            bare = [statement for statement in body if _is_string(statement)]
            for number, statement in enumerate(bare):
                start = starts[statement.lineno - 1] + statement.col_offset
                end = starts[statement.end_lineno - 1] + statement.end_col_offset
                alone = len(bare) == len(body) and number == 0 and not isinstance(node, ast.Module)
                cuts.append((start, end, b"pass" if alone else b""))
    for start, end, instead in sorted(cuts, reverse=True):
        if not instead:
            line_start = source.rfind(b"\n", 0, start) + 1
            line_end = source.find(b"\n", end) + 1 or len(source)
            if not source[line_start:start].strip() and not source[end:line_end].strip():
                start, end = line_start, line_end
            elif source[end:line_end].lstrip().startswith(b";"):
                end += len(source[end:line_end]) - len(source[end:line_end].lstrip().removeprefix(b";").lstrip())
        source = source[:start] + instead + source[end:]
    return source.decode()


def _is_string(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def functions(tree: ast.Module) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method of a file, in an order that cutting docstrings does not change."""
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def body_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """The syntax tree of arguments and body as text: equal for copies that differ in layout, comments or name."""
    return ast.dump(function.args) + "".join(ast.dump(statement) for statement in function.body)


def rows_of(path: str, text: str, bare: str) -> list[Row]:
    """The documented functions of one file; `bare` is `text` without docstrings."""
    lines, rows = bare.splitlines(), []
    for documented, stripped in zip(functions(ast.parse(text)), functions(ast.parse(bare)), strict=True):
        docstring = ast.get_docstring(documented)
        if not docstring or (len(stripped.body) == 1 and isinstance(stripped.body[0], ast.Pass)):
            continue
        first = min([stripped.lineno, *(decorator.lineno for decorator in stripped.decorator_list)])
        code = textwrap.dedent("\n".join(lines[first - 1 : stripped.end_lineno]))
        paragraph = " ".join(re.split(r"\n\s*\n", docstring.strip())[0].split())
        # The prompt ends with the quotes that open a docstring: the completion is what follows them.
        rows.append(Row(path, stripped.name, f'{code}\n"""', paragraph, body_of(stripped)))
    return rows


def family(path: str) -> str:
    """The unit that is not divided between splits: a top-level module or package, with those similar to it."""
    top = path.split("/")[0].removesuffix(".py")
    return FAMILY.get(top, top)


def split(counts: dict[str, int], seed: int) -> dict[str, str]:
    """By family: train, validation or test, so that each held-out split has enough rows before copies are dropped.

    counts: rows by family.
    """
    order = sorted(counts)
    random.Random(seed).shuffle(order)
    wanted = {"validation": 2.5 * HELD_OUT_ROWS, "test": 2.5 * HELD_OUT_ROWS}  # over half are too long or have a copy
    splits = {}
    for name in order:
        open_split = next((part for part, rows in wanted.items() if rows > 0), "train")
        splits[name] = open_split if 0 < counts[name] <= LARGEST_HELD_OUT else "train"
        if splits[name] != "train":
            wanted[open_split] -= counts[name]
    return splits


def words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z0-9]+", text.lower()))


def alike(one: frozenset[str], others: Iterable[frozenset[str]]) -> bool:
    """True if one of `others` shares at least NEAR of its words (Jaccard) with `one`."""
    return any(len(one & other) >= NEAR * len(one | other) for other in others)


def hold_out(rows: list[Row], seen_rows: list[Row], seen_bodies: set[str], seen_text: str, seed: int) -> list[Row]:
    """HELD_OUT_ROWS of `rows` that have no copy in what was seen: no equal body, no similar words, no quotation."""
    prompts, completions = ([words(row.prompt) for row in seen_rows], [words(row.completion) for row in seen_rows])
    bodies, kept = set(seen_bodies), []
    for row in random.Random(seed).sample(rows, len(rows)):
        code, said = words(row.prompt), words(row.completion)
        quoted = " ".join(row.completion.split()) in seen_text
        if row.body in bodies or quoted or alike(said, completions) or alike(code, prompts):
            continue
        bodies.add(row.body)
        prompts.append(code)
        completions.append(said)
        kept.append(row)
    if len(kept) < HELD_OUT_ROWS:
        raise SystemExit(f"only {len(kept)} held-out rows without a copy elsewhere; {HELD_OUT_ROWS} wanted")
    return kept[:HELD_OUT_ROWS]


def make_data(out: Path, work: Path) -> None:
    """Reads the library; writes the splits and `sources.json` to `out`, tokenizer to `out/base`, corpus to `work`."""
    library = Path(sysconfig.get_path("stdlib"))
    files = dict(library_files(library))
    bare = {path: without_docstrings(text) for path, text in files.items()}
    rows = [row for path, text in files.items() for row in rows_of(path, text, bare[path])]
    print(f"{len(files)} files, {sum(map(len, bare.values())):,} characters without docstrings, {len(rows)} functions")

    # Lengths need a tokenizer, which must not see held-out text: rows are split by characters, then measured.
    fits = [row for row in rows if len(row.prompt) + len(row.completion) < 4 * ROW_TOKENS[1]]
    counts: dict[str, int] = dict.fromkeys(map(family, files), 0)
    for row in fits:
        counts[family(row.module)] += 1
    splits = split(counts, SEED)
    part = {path: splits[family(path)] for path in files}
    corpus = [bare[path] for path in files if part[path] == "train"]
    tokenizer = train_tokenizer(corpus, out / "base")

    def measured(name: str) -> list[Row]:
        ours = [row for row in fits if part[row.module] == name]
        prompts = [len(ids) for ids in tokenizer([row.prompt for row in ours])["input_ids"]]
        completions = [len(ids) + 1 for ids in tokenizer([row.completion for row in ours])["input_ids"]]
        return [
            row
            for row, prompt, completion in zip(ours, prompts, completions, strict=True)
            if COMPLETION_TOKENS[0] <= completion <= COMPLETION_TOKENS[1]
            and ROW_TOKENS[0] <= prompt + completion <= ROW_TOKENS[1]
        ]

    train = list({(row.body, row.completion): row for row in measured("train")}.values())
    every_train_row = [row for row in rows if part[row.module] == "train"]
    seen_bodies = {body_of(node) for text in corpus for node in functions(ast.parse(text))}
    seen_text = " ".join(" ".join(text.replace("#", " ").split()) for text in corpus)
    validation = hold_out(measured("validation"), every_train_row, seen_bodies, seen_text, SEED)
    seen_bodies |= {row.body for row in validation}
    test = hold_out(measured("test"), every_train_row + validation, seen_bodies, seen_text, SEED)

    # Held-out rows from short to long: batches of nearly one length need hardly any padding.
    def length(row: Row) -> int:
        return len(tokenizer(row.prompt + row.completion)["input_ids"])

    random.Random(SEED).shuffle(train)
    final = {"train": train, "validation": sorted(validation, key=length), "test": sorted(test, key=length)}
    for name, chosen in final.items():
        lines = (json.dumps({"prompt": row.prompt, "completion": row.completion}) for row in chosen)
        (out / f"{name}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")

    work.mkdir(parents=True, exist_ok=True)
    held_out = [bare[path] for path in files if part[path] == "validation"]
    with lzma.open(work / "corpus.json.xz", "wt", encoding="utf-8") as stream:
        json.dump({"train": corpus, "validation": held_out}, stream)
    shutil.copyfile(library / "LICENSE.txt", out / "LICENSE-PSF.txt")
    by_split = defaultdict(list)
    for path in files:
        by_split[part[path]].append(path)
    sources = {
        "python": platform.python_version(),
        "corpus": {
            "files": len(corpus),
            "characters": sum(map(len, corpus)),
            "tokens": sum(len(ids) for ids in tokenizer(corpus, verbose=False)["input_ids"]),
            "sha256": digest("\0".join(corpus)),
        },
        "rows": {name: len(chosen) for name, chosen in final.items()},
        "mean_tokens": {name: round(sum(map(length, chosen)) / len(chosen) + 1, 1) for name, chosen in final.items()},
        "row_modules": {name: sorted({row.module for row in chosen}) for name, chosen in final.items()},
        "files": by_split,
    }
    (out / "sources.json").write_text(json.dumps(sources, indent=1) + "\n", "utf-8")
    print(json.dumps({key: sources[key] for key in ("python", "corpus", "rows", "mean_tokens")}, indent=1))


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def train_tokenizer(corpus: list[str], folder: Path) -> Any:
    """A byte-level BPE of VOCABULARY tokens, trained on the corpus, saved with its end and padding tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[END, PAD], initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator(corpus, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token=END, pad_token=PAD, model_max_length=512, padding_side="right"
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def make_base(out: Path, work: Path, *, steps: int, device: str) -> dict[str, Any]:
    """Pre-trains the base on the corpus in `work`, saves it to `out/base` in fp32; gives facts about the run."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(SEED)
    tokenizer = AutoTokenizer.from_pretrained(out / "base")
    with lzma.open(work / "corpus.json.xz", "rt", encoding="utf-8") as stream:
        corpus = json.load(stream)
    tokens = {}
    for name, texts in corpus.items():
        files = tokenizer([text + END for text in texts], verbose=False)["input_ids"]
        tokens[name] = torch.tensor([token for file in files for token in file], device=device)

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config).to(device)
    count = sum(parameter.numel() for parameter in model.parameters())
    rows, length = 64, 256
    peak, warmup = 3e-3, 100
    decayed = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.95))
    print(f"{count:,} parameters, {len(tokens['train']):,} tokens, {steps} steps of {rows} x {length} on {device}")

    def batch(name: str, generator: torch.Generator) -> torch.Tensor:
        starts = torch.randint(len(tokens[name]) - length, (rows,), generator=generator)
        return tokens[name][(starts[:, None] + torch.arange(length)).to(device)]

    def held_out() -> float:
        generator = torch.Generator().manual_seed(SEED)
        model.eval()
        with torch.no_grad():
            losses = [loss_of(batch("validation", generator)).item() for _ in range(8)]
        model.train()
        return sum(losses) / len(losses)

    def loss_of(ids: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
            return model(input_ids=ids, labels=ids).loss

    generator, started, mean = torch.Generator().manual_seed(SEED), time.monotonic(), math.nan
    for step in range(steps):
        rate = peak * min((step + 1) / warmup, 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = loss_of(batch("train", generator))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 200 == 0 or step == steps - 1:
            mean = loss.item()
            spent = time.monotonic() - started
            print(f"step {step + 1:5d}  train {mean:.3f}  held out {held_out():.3f}  {spent:.0f} s", flush=True)
    facts = {
        "parameters": count,
        "steps": steps,
        "tokens_a_step": rows * length,
        "train_loss": round(mean, 3),
        "held_out_source_loss": round(held_out(), 3),
        "seconds": round(time.monotonic() - started),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "torch": torch.__version__,
    }
    model.to("cpu", dtype=torch.float32).save_pretrained(out / "base")
    (out / "base" / "model.safetensors").chmod(0o644)  # it is written with mode 0600, which a package would keep
    return facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("tuner/demo"), help="where the demo goes")
    parser.add_argument("--work", type=Path, default=Path("build/demo"), help="where the corpus is kept between stages")
    parser.add_argument("--stage", choices=("all", "data", "pretrain"), default="all")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--steps", type=int, default=1200, help="pre-training steps of 16,384 tokens")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.stage in ("all", "data"):
        make_data(arguments.out, arguments.work)
    if arguments.stage in ("all", "pretrain"):
        facts = make_base(arguments.out, arguments.work, steps=arguments.steps, device=arguments.device)
        told = json.loads((arguments.out / "sources.json").read_text("utf-8"))
        (arguments.out / "sources.json").write_text(json.dumps({**told, "base": facts}, indent=1) + "\n", "utf-8")
        print(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
