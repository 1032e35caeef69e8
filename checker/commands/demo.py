"""``demo``: the suite on a real model, offline, with one cell that must fail."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from checker.commands.child import ask
from checker.commands.run import arguments_of, suite_of
from checker.commands.suite import run_suite
from checker.commands.vocabulary import vocabulary
from checker.domain import ExitCode, Outcome, RunResult
from checker.environment import cache_base
from checker.matrix import load_matrix

LAYER = "model.layers.14.mlp.down_proj"  # the one that is damaged
EXPECTED = {"smollm2/nf4": Outcome.PASS, "smollm2/int8": Outcome.PASS, "smollm2/damaged": Outcome.FAIL}
SECONDS = 900
NF4 = {
    "quant_method": "bitsandbytes",
    "load_in_4bit": True,
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_use_double_quant": True,
    "bnb_4bit_compute_dtype": "bfloat16",
}
MATRIX = f"""\
# yaml-language-server: $schema=./matrix.schema.json
version: 1
quantizations:
  nf4: {{quant_method: bitsandbytes, load_in_4bit: true, bnb_4bit_quant_type: nf4, bnb_4bit_use_double_quant: true,
        bnb_4bit_compute_dtype: bfloat16}}
  int8: {{quant_method: bitsandbytes, load_in_8bit: true}}
defaults:
  prompts:
    - {{text: "The first president of the United States was George", accept: {{"*": ["Washington"]}}}}
    - {{text: "1, 2, 3, 4, 5, 6,", accept: {{"*": ["7, 8, 9,"]}}}}
models:
  - name: smollm2
    baseline: ./smollm2-135m
    quantizations: [nf4, int8]
    # a copy of the nf4 checkpoint in which the nibbles of {LAYER} were swapped
    checkpoints: {{damaged: ./smollm2-135m-nf4-damaged}}
"""


def run_demo(options: Mapping[str, Any], *, rebuild: bool) -> ExitCode:
    """Make the models if need be, run the matrix beside them, and compare the verdicts with what they must be."""
    folder = cache_folder()
    prepare(folder, rebuild=rebuild)
    arguments = arguments_of({**options, "report_dir": options["report_dir"] or "quant-verify-report"})
    loaded = load_matrix(folder / "quant-verify.yml", vocabulary(), forced=arguments.forced())
    run, code = run_suite(suite_of(loaded), arguments)
    if run.interrupted is not None:
        return code
    as_expected, sentence = judge(run)
    stream = sys.stderr if arguments.format == "json" else sys.stdout
    stream.write(f"\n{sentence}\nReports: {arguments.report_dir}   Matrix: {loaded.path}\n")
    return ExitCode.PASSED if as_expected else ExitCode.FAILED


def judge(run: RunResult) -> tuple[bool, str]:
    """Whether the verdicts are the expected ones, and the sentence that says so."""
    outcomes = {cell.cell.id: cell.outcome for cell in run.cells}
    findings = [finding for cell in run.cells for check in cell.checks for finding in check.findings]
    named = any(finding.where == LAYER for finding in findings)
    wrong = [f"{cell} is {outcomes[cell]}" for cell in outcomes if outcomes[cell] is not EXPECTED.get(cell)]
    answers = (check for cell in run.cells for check in cell.checks if check.id == "outputs.known-good")
    fooled = all(check.outcome is Outcome.PASS for check in answers)
    if wrong or (not named and EXPECTED.keys() <= outcomes.keys()):
        return False, f"demo: not as expected: {', '.join(wrong) or f'no finding names {LAYER}'}"
    also = "It still answers both prompts; only the weights tell." if fooled else ""
    return True, f"demo: as expected. Two healthy models pass; the damaged copy fails at {LAYER}. {also}".rstrip()


def cache_folder() -> Path:
    """Where the demo's models are kept: QUANT_VERIFY_CACHE, XDG_CACHE_HOME or ~/.cache."""
    return cache_base() / "demo"


def prepare(folder: Path, *, rebuild: bool) -> None:
    """Make the models and the matrix, once; a folder is put in place only when it is complete.

    Raises:
        Unavailable: the model's package, torch or disk space is missing.
    """
    if rebuild:
        shutil.rmtree(folder, ignore_errors=True)
    if not (folder / "quant-verify.yml").is_file():
        sys.stderr.write(f"quant-verify: making the demo's models in {folder} (once, about half a minute)\n")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".demo-") as temporary:
            made = Path(temporary) / "demo"
            made.mkdir()
            request = {
                "baseline": str(made / "smollm2-135m"),
                "damaged": str(made / "smollm2-135m-nf4-damaged"),
                "layer": LAYER,
                "quantization": NF4,
            }
            ask("checker.probes.demo_model", request, timeout=SECONDS)
            (made / "quant-verify.yml").write_text(MATRIX, encoding="utf-8")
            shutil.rmtree(folder, ignore_errors=True)
            made.rename(folder)
    (folder / "quant-verify.yml").write_text(MATRIX, encoding="utf-8")
    schema = Path(__file__).parent.parent / "data" / "matrix.schema.json"
    shutil.copyfile(schema, folder / "matrix.schema.json")
