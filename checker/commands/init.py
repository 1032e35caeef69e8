"""``init``: a first matrix file and a workflow, ready to be edited."""

from __future__ import annotations

import sys
from pathlib import Path

from checker.domain import ExitCode
from checker.errors import UsageError

MATRIX = """\
# What quant-verify judges. quant-verify run reads this file; quant-verify plan shows the jobs.
version: 1

quantizations:  # each value is a quantization_config as it stands in config.json
  nf4: {quant_method: bitsandbytes, load_in_4bit: true, bnb_4bit_quant_type: nf4, bnb_4bit_use_double_quant: true,
        bnb_4bit_compute_dtype: bfloat16}
  int8: {quant_method: bitsandbytes, load_in_8bit: true}

defaults:
  depth: full  # static: files only; load: also load and inspect; full: also run, save and reload
  timeout: 1800
  prompts:
    - {text: "The capital of France is", accept: {"*": ["Paris", "the city of Paris"]}}

models:
  - baseline: HuggingFaceTB/SmolLM2-135M-Instruct  # append @COMMIT to pin it
    quantizations: [nf4, int8]  # made here, at load time
  # - name: published  # already quantized: folders, globs or Hub ids
  #   checkpoints: ["./models/*"]
"""
WORKFLOW = """\
name: quant-verify
on: [pull_request]
permissions: {contents: read}
jobs:
  verify:
    runs-on: ubuntu-latest  # or the labels of a machine with a GPU: [self-hosted, gpu]
    steps:
      - uses: actions/checkout@v7
        with: {persist-credentials: false}
      - uses: org/quant-verify@v1
        with: {matrix: quant-verify.yml}
        env: {HF_TOKEN: "${{ secrets.HF_TOKEN }}"}  # for models that ask for a token
      - uses: actions/upload-artifact@v7
        if: always()
        with: {name: quant-verify-report, path: quant-verify-report}
"""
FILES = {"quant-verify.yml": MATRIX, ".github/workflows/quant-verify.yml": WORKFLOW}


def write_first_files(folder: Path, *, force: bool) -> ExitCode:
    """Write both files.

    Raises:
        UsageError: one of them exists and ``--force`` was not given (nothing is written then), or cannot be written.
    """
    there = [name for name in FILES if (folder / name).exists()]
    if there and not force:
        raise UsageError(f"{', '.join(there)} exists; --force writes over it")
    for name, text in FILES.items():
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise UsageError(f"cannot write {name}: {error.strerror}") from None
        sys.stdout.write(f"wrote {name}\n")
    sys.stdout.write("next: edit quant-verify.yml, then quant-verify run\n")
    return ExitCode.PASSED
