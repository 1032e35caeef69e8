"""Greedy continuations: several prompts at once, whatever generation_config.json says, and weighed where they miss."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from models import MODELS, NF4, Zoo, damage, save_quantized
from small_language import SPECIAL, save_language_model, save_tokenizer, vocabulary

from checker.domain import Finding, Prompt, Severity
from checker.errors import NotApplicable, Unavailable
from checker.facts import Continuation, KnownText, TextFacts
from checker.probes.forward import ForwardFailed
from checker.probes.generation import DEFAULT_PROMPTS, Surroundings, accepted_on, continuations, gather_texts
from checker.probes.greedy import TIE, end_tokens, generate, longest_of, score
from checker.probes.template import TemplateFault
from checker.probes.tokenizer import Tokenizer, has_tokenizer, load_tokenizer
from checker.registry import all_checks, resolve_limits

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

PROMPTS = (Prompt(text="the old cat", max_new_tokens=24), Prompt(text="the king sees the", max_new_tokens=12))
ARCHITECTURES = ("llama", "gpt2", "bloom", "opt", "t5", "qwen3-moe")
ROWS = ((5, 9, 30), (7, 80, 81, 82, 3, 9, 120), (11,), (90, 91, 92, 93, 94))


def load(folder: Path, dtype: object = torch.float32):
    config = json.loads((folder / "config.json").read_text())
    cls = getattr(transformers, config["architectures"][0])
    return cls.from_pretrained(folder, dtype=dtype, device_map={"": "cpu"}).eval()


def around(folder: Path) -> Surroundings:
    return Surroundings(words=folder, device="cpu")


@pytest.fixture(scope="module")
def language(tmp_path_factory) -> Path:
    torch.set_num_threads(1)
    return save_language_model(tmp_path_factory.mktemp("language") / "baseline")


@pytest.fixture(scope="module")
def baseline(language: Path) -> tuple[Continuation, ...]:
    return continuations(load(language, "auto"), language, PROMPTS)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_rows_of_a_batch_give_what_they_give_alone(name: str, zoo: Zoo):
    model = load(zoo.baseline(name))
    together = generate(model, ROWS, [9, 9, 4, 9], frozenset())
    alone = [generate(model, [row], [most], frozenset())[0] for row, most in zip(ROWS, [9, 9, 4, 9], strict=True)]
    assert together == alone
    assert list(map(len, together)) == [9, 9, 4, 9]
    scored = score(model, list(zip(ROWS, together, strict=True)))
    for row, tokens, said in zip(ROWS, together, scored, strict=True):
        [by_itself] = score(model, [(row, tokens)])
        assert said.losses == pytest.approx(by_itself.losses, rel=1e-3)
        assert said.entropy == pytest.approx(by_itself.entropy, rel=1e-3)
        assert said.agreement == 1.0, "what greedy decoding chose is the most likely in one pass"
        assert max(said.losses) <= math.log(model.config.vocab_size)


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name != "t5"])
def test_a_score_is_the_softmax_of_the_models_logits(name: str, zoo: Zoo):
    model, row, tokens = load(zoo.baseline(name)), (5, 9, 30), (4, 77, 12, 9)
    with torch.no_grad():
        logs = model(torch.tensor([row + tokens])).logits[0, len(row) - 1 : -1].log_softmax(-1)
    [said] = score(model, [(row, tokens)])
    assert said.losses == pytest.approx([-float(logs[i, token]) for i, token in enumerate(tokens)], rel=1e-4)
    assert said.entropy == pytest.approx(float(-(logs.exp() * logs).sum(-1).mean()), rel=1e-4)
    near = [float(logs[i].max() - logs[i, token]) <= TIE for i, token in enumerate(tokens)]
    assert said.agreement == pytest.approx(sum(near) / len(tokens))


def test_logits_of_many_rows_are_never_held_together(zoo: Zoo, monkeypatch):
    model, sizes = load(zoo.baseline("llama")), []
    monkeypatch.setattr("checker.probes.greedy.MOST_LOGITS", 160 * 12)
    watch = model.lm_head.register_forward_hook(lambda _m, _i, _o: sizes.append(1))
    rows = [(row, (1, 2, 3, 4, 5)) for row in ROWS]
    split = score(model, rows)
    watch.remove()
    assert len(sizes) > 2
    monkeypatch.undo()
    for one, other in zip(split, score(model, rows), strict=True):
        assert one.losses == pytest.approx(other.losses, rel=1e-3)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"do_sample": True, "temperature": 5.0, "top_k": 3}, id="sampling"),
        pytest.param({"repetition_penalty": 20.0, "no_repeat_ngram_size": 1}, id="penalties"),
        pytest.param({"num_beams": 4, "early_stopping": True, "length_penalty": 3.0}, id="beams"),
        pytest.param({"suppress_tokens": list(range(5, 40)), "bad_words_ids": [[26]]}, id="tokens forbidden"),
        pytest.param({"min_new_tokens": 40, "max_length": 2, "max_new_tokens": 10**8}, id="lengths"),
        pytest.param({"forced_bos_token_id": 7, "forced_eos_token_id": 8}, id="tokens forced"),
        pytest.param({"cache_implementation": "static", "use_cache": False, "output_attentions": True}, id="caches"),
        pytest.param({"guidance_scale": 3.0, "sequence_bias": [[[5], 9.0]]}, id="bias"),
    ],
)
def test_generation_config_has_no_say(settings, language: Path, baseline):
    model = load(language, "auto")
    for name, value in settings.items():
        setattr(model.generation_config, name, value)
    own = model.generation_config
    assert continuations(model, language, PROMPTS) == baseline
    assert model.generation_config is own


def test_a_continuation_is_what_generate_gives(language: Path, baseline):
    model, tokenizer = load(language, "auto"), load_tokenizer(language)
    first = baseline[0]
    asked = tokenizer(PROMPTS[0].text, return_tensors="pt")
    row = model.generate(**asked, max_new_tokens=24, do_sample=False)[0].tolist()
    assert first.prompt_tokens == tuple(row[: len(first.prompt_tokens)])
    assert first.tokens == tuple(row[len(first.prompt_tokens) :])
    assert first.text == tokenizer.decode(first.tokens, skip_special_tokens=True)
    assert len(first.tokens) == 24
    assert first.nll == pytest.approx(sum(first.losses) / 24)
    assert 0 < first.nll < 1.0 < math.log(len(vocabulary()))
    assert 0 < first.entropy < 1.5
    assert [(item.prompt, item.chat, len(item.tokens)) for item in baseline] == [
        ("the old cat", False, 24),
        ("the king sees the", False, 12),
    ]


def test_a_text_ends_with_its_end_token_in_every_row(language: Path):
    model = load(language, "auto")
    dot = vocabulary().index(".")
    model.generation_config.eos_token_id = [2, dot]
    assert end_tokens(model) == {2, dot}
    for item in continuations(model, language, PROMPTS):
        assert item.tokens.index(dot) == len(item.tokens) - 1
    model.generation_config.eos_token_id = [2, 10**6, -1, None]
    assert end_tokens(model) == {2}


def test_what_ended_the_baselines_text_ends_this_one(language: Path):
    model = load(language, "auto")
    dot = vocabulary().index(".")
    model.generation_config.eos_token_id = dot
    theirs = continuations(model, language, PROMPTS)
    model.generation_config.eos_token_id = None
    facts = gather_texts(model, around(language), PROMPTS, theirs, ())
    assert [item.tokens for item in facts.texts] == [item.tokens for item in theirs]


def test_a_healthy_model_finds_its_baselines_text_as_likely(language: Path, baseline):
    facts = gather_texts(load(language, "auto"), around(language), PROMPTS, baseline, ())
    for item, theirs in zip(facts.texts, baseline, strict=True):
        assert item.baseline is theirs
        assert (item.text, item.tokens) == (theirs.text, theirs.tokens)
        assert item.losses == pytest.approx(theirs.losses)
        assert item.entropy == pytest.approx(theirs.entropy)
        assert item.matched is None
        assert item.agreement is None


def findings_of(check_id: str, facts: TextFacts) -> list[Finding]:
    item = next(item for item in all_checks() if item.id == check_id)
    return [said for said in item.function(facts, resolve_limits(item, {}, {})) if isinstance(said, Finding)]


def test_halves_of_bytes_swapped_cost_nats(language: Path, baseline, tmp_path):
    healthy = save_quantized(language, tmp_path / "nf4", NF4)
    with damage(healthy, tmp_path / "swapped") as broken:
        for name in [name for name in broken.tensors if ".quant_state." in name]:
            codes = broken.u8(name.partition(".quant_state.")[0])
            codes[:] = codes >> 4 | codes << 4
    means, verdicts = [], []
    for folder in (healthy, tmp_path / "swapped"):
        facts = gather_texts(load(folder, "auto"), around(folder), PROMPTS, baseline, ())
        here = [loss for item in facts.texts for loss in item.losses]
        there = [loss for item in baseline for loss in item.losses]
        means.append(sum(here) / len(here) - sum(there) / len(there))
        # a model of two layers knows much by its embeddings, which stay whole: the bars of a larger one
        verdicts.append(findings_of("outputs.likelihood", replace(facts, bits=4, parameters=2_000_000_000)))
    assert means[0] < 0.5
    assert means[1] > 1.5
    assert verdicts[0] == []
    assert [finding.severity for finding in verdicts[1]] == [Severity.FAIL]
    assert facts.texts[0].text is None, "the copy has no tokenizer, and writes another text"
    assert facts.texts[0].tokens


def test_the_baselines_tokens_need_no_tokenizer(language: Path, baseline, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(language, bare, ignore=shutil.ignore_patterns("tokenizer*"))
    model = load(bare, "auto")
    facts = gather_texts(model, around(bare), PROMPTS, baseline, ())
    assert [item.text for item in facts.texts] == [item.text for item in baseline]
    with pytest.raises(
        Unavailable, match="there is no tokenizer in the checkpoint to write the prompt 'the old cat' with"
    ):
        gather_texts(model, around(bare), PROMPTS, (), ())
    with pytest.raises(NotApplicable, match="no tokenizer"):
        gather_texts(model, around(bare), DEFAULT_PROMPTS, baseline, ())
    assert continuations(model, bare, DEFAULT_PROMPTS) == ()


def test_default_prompts_are_three_short_ones():
    assert len({prompt.text for prompt in DEFAULT_PROMPTS}) == len(DEFAULT_PROMPTS) == 3
    assert all(prompt.max_new_tokens == 20 and not prompt.chat and not prompt.accept for prompt in DEFAULT_PROMPTS)


def known(item: Continuation, **changes: object) -> KnownText:
    fields = {"prompt": item.prompt, "chat": item.chat, "text": item.text, "tokens": item.tokens, "device": "cpu"}
    return KnownText(**{**fields, **changes})  # type: ignore[arg-type]


def test_what_was_recorded_and_comes_again_is_not_weighed(language: Path, baseline):
    facts = gather_texts(load(language, "auto"), around(language), PROMPTS, (), tuple(map(known, baseline)))
    assert [(item.matched, item.agreement, item.elsewhere) for item in facts.texts] == [(True, None, False)] * 2


def test_a_miss_is_weighed_by_the_share_of_tokens_that_the_model_would_choose(language: Path, baseline):
    model, first = load(language, "auto"), baseline[0]
    words = vocabulary()
    changed = list(first.tokens)
    place = first.losses.index(min(first.losses[4:]))
    changed[place] = words.index("<unk>")
    facts = gather_texts(
        model, around(language), PROMPTS, (), (known(first, text="something else", tokens=tuple(changed)),)
    )
    [item, other] = facts.texts
    assert item.matched is False
    assert item.agreement is not None
    assert 0.7 <= item.agreement < 1.0
    assert (other.matched, other.agreement) == (None, None)


def test_an_accepted_beginning_is_weighed_as_a_text(language: Path, baseline):
    model = load(language, "auto")
    asked = replace(PROMPTS[0], accept={"*": ("gold gold gold gold",), "cpu": (f"{baseline[0].text} x",)})
    [item] = gather_texts(model, around(language), (asked,), (), ()).texts
    assert item.matched is False
    assert item.agreement is not None
    assert item.agreement > 0.9, "all but what is beyond the last token"
    asked = replace(asked, accept={"*": ("gold gold gold gold",)})
    [item] = gather_texts(model, around(language), (asked,), (), ()).texts
    assert item.agreement is not None
    assert item.agreement < 0.5


@pytest.mark.parametrize(
    ("devices", "here", "expected"),
    [
        pytest.param(("cpu", "cuda"), "cpu", (("cpu",), False), id="of this class"),
        pytest.param(("cuda", "cpu"), "cuda:1", (("cuda",), False), id="of any GPU of the class"),
        pytest.param(("NVIDIA H200", "cpu"), "cuda:0", (("NVIDIA H200",), False), id="a GPU by its name"),
        pytest.param(
            ("cuda", "NVIDIA A100"), "cpu", (("cuda", "NVIDIA A100"), True), id="of any other when there is none"
        ),
        pytest.param((), "cpu", ((), False), id="none at all"),
    ],
)
def test_which_recorded_texts_count(devices, here, expected, language: Path, baseline):
    from checker.probes.generation import _compared

    texts = tuple(known(baseline[0], device=device) for device in devices)
    [item] = gather_texts(load(language, "auto"), around(language), PROMPTS[:1], (), ()).texts
    found = _compared(item, PROMPTS[0], (*texts, known(baseline[1])), here)
    assert (tuple(text.device for text in found.known), found.elsewhere) == expected


def test_recorded_tokens_of_another_vocabulary_weigh_nothing(language: Path, baseline):
    odd = known(baseline[0], text="x", tokens=(10**6, 3))
    [item] = gather_texts(load(language, "auto"), around(language), PROMPTS[:1], (), (odd,)).texts
    assert (item.matched, item.agreement) == (False, None)


def test_accepted_beginnings_go_by_the_device():
    prompt = Prompt(text="x", accept={"*": ("a",), "cuda": ("b",), "cuda:1": ("c",), "c*": ("d", "e")})
    assert accepted_on(prompt, "cuda:1") == ("a", "b", "c", "d", "e")
    assert accepted_on(prompt, "cpu") == ("a", "d", "e")
    assert accepted_on(prompt, "mps") == ("a",)


def test_a_chat_is_put_in_the_checkpoints_template(language: Path):
    tokenizer = load_tokenizer(language)
    turns = [{"role": "user", "content": "the old cat"}]
    expected = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert Tokenizer(language).encode_chat("the old cat") == tuple(expected)
    assert expected[0] == SPECIAL.index("<s>")
    [item] = continuations(load(language, "auto"), language, (replace(PROMPTS[0], chat=True),))
    assert item.prompt_tokens == tuple(expected)
    assert item.chat


def test_a_hostile_template_is_a_fact_of_the_prompt_that_needs_it(language: Path, tmp_path):
    folder = tmp_path / "hostile"
    shutil.copytree(language, folder)
    (folder / "chat_template.jinja").write_text("{{ 'a' * 10**10 }}")
    model = load(folder, "auto")
    prompts = (PROMPTS[0], replace(PROMPTS[1], chat=True))
    plain, chat = gather_texts(model, around(folder), prompts, (), ()).texts
    assert (plain.flaw, bool(plain.text)) == ("", True)
    assert chat.flaw == "the chat template in chat_template.jinja needs more than 1,024 MiB of memory to render"
    assert (chat.text, chat.tokens) == ("", ())
    with pytest.raises(Unavailable, match="the baseline cannot be prompted: the chat template in"):
        continuations(model, folder, prompts)
    with pytest.raises(TemplateFault):
        Tokenizer(folder).encode_chat("x")


def test_a_chat_without_a_template(language: Path, tmp_path):
    folder = tmp_path / "plain"
    shutil.copytree(language, folder)
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(Unavailable, match=r"holds no chat template; add chat_template\.jinja, or set chat: false"):
        gather_texts(load(folder, "auto"), around(folder), (replace(PROMPTS[0], chat=True),), (), ())


def test_tokens_beyond_the_embeddings_never_reach_the_model(language: Path, tmp_path):
    folder = tmp_path / "wide"
    shutil.copytree(language, folder)
    document = json.loads((folder / "tokenizer.json").read_text())
    document["model"]["vocab"]["zebra"] = 5000
    (folder / "tokenizer.json").write_text(json.dumps(document))
    model = load(folder, "auto")
    [item] = gather_texts(model, around(folder), (Prompt(text="the zebra"),), (), ()).texts
    assert (
        item.flaw
        == f"the prompt 'the zebra' has token 5000, but the model has embeddings for {len(vocabulary())} tokens"
    )


def test_a_text_ends_where_the_model_has_no_positions_left(language: Path):
    model = load(language, "auto")
    long = Prompt(text="the cat " * 30, max_new_tokens=50)
    [item] = continuations(model, language, (long,))
    assert len(item.prompt_tokens) + len(item.tokens) == longest_of(model) == 64
    with pytest.raises(Unavailable, match="has 64 tokens; the model takes 64 at most"):
        continuations(model, language, (replace(long, text="the cat " * 32),))


def test_a_tokenizer_that_cannot_be_loaded(language: Path, tmp_path):
    folder = tmp_path / "cut"
    shutil.copytree(language, folder)
    text = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(text[: len(text) // 2])
    with pytest.raises(Unavailable, match=r"the tokenizer in .*cut cannot be used: "):
        load_tokenizer(folder)
    assert has_tokenizer(folder)
    assert not has_tokenizer(tmp_path)
    assert load_tokenizer(tmp_path) is None


def test_a_model_that_runs_but_does_not_generate(language: Path, baseline):
    model = load(language, "auto")

    def fail(*_args: object, **_kwargs: object) -> None:
        raise RuntimeError("no cache\nfor you")

    model.model.layers[1].self_attn.forward = fail
    facts = gather_texts(model, around(language), PROMPTS, baseline, ())
    assert (facts.flaw, facts.texts) == ("RuntimeError: no cache", ())
    with pytest.raises(Unavailable, match="the baseline does not generate: RuntimeError: no cache"):
        continuations(model, language, PROMPTS)
    with pytest.raises(ForwardFailed):
        generate(model, [(5,)], [2], frozenset())


def test_random_models_of_every_kind_are_continued(zoo: Zoo, tmp_path):
    for name in ARCHITECTURES:
        folder = tmp_path / name
        shutil.copytree(zoo.baseline(name), folder)
        save_tokenizer(folder)
        model = load(folder, "auto")
        theirs = continuations(model, folder, DEFAULT_PROMPTS)
        facts = gather_texts(model, around(folder), DEFAULT_PROMPTS, theirs, ())
        assert [item.tokens for item in facts.texts] == [item.tokens for item in theirs]
        assert MODELS[name][1]["vocab_size"] == model.config.vocab_size
