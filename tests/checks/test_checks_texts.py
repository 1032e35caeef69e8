"""outputs.known-good, outputs.degenerate and outputs.likelihood: what is said of texts, and what is never said."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from healthy_facts import judge

from checker.domain import Limit, Severity
from checker.errors import NotApplicable, Unavailable
from checker.facts import Continuation, GeneratedText, KnownText, TextFacts

FAIL, WARN = Severity.FAIL, Severity.WARN
LENGTH = 24
PLAIN = tuple(range(100, 100 + LENGTH))
STEADY = (0.5, 1.5) * (LENGTH // 2)  # nats of each of the baseline's tokens
NAMES = ("a fact", "a story", "code")


def continuation(prompt: str, tokens: tuple[int, ...] = PLAIN, text: str = "as it was", **changes) -> Continuation:
    fields = {"nll": 1.0, "entropy": 2.0, "losses": STEADY, "chat": False, "prompt_tokens": (1,)} | changes
    return Continuation(prompt=prompt, tokens=tokens, text=text, **fields)


def said(prompt: str = "The capital is", tokens: tuple[int, ...] = PLAIN, text: str | None = "Paris", **changes):
    return GeneratedText(prompt=prompt, tokens=tokens, text=text, **changes)


def known(text: str = "Lyon", tokens: tuple[int, ...] = (7, 8), device: str = "cpu") -> KnownText:
    return KnownText(prompt="The capital is", chat=False, text=text, tokens=tokens, device=device)


def facts(*texts: GeneratedText, **changes) -> TextFacts:
    return TextFacts(texts=texts, parameters=100_000_000, bits=4, **changes)


def beside(*rows: tuple[int, ...], theirs: tuple[tuple[int, ...], ...] = (), cost: float = 0.1) -> TextFacts:
    """Texts of these tokens beside healthy ones of a baseline, all of them as likely here but for ``cost``."""
    starts = theirs or tuple(tuple(range(200 + 50 * n, 200 + 50 * n + LENGTH)) for n in range(len(rows)))
    return facts(
        *(
            said(
                name,
                tokens,
                baseline=continuation(name, start),
                losses=tuple(value + cost * (1 + (n % 3) / 10) for n, value in enumerate(STEADY)),
                entropy=2.0,
            )
            for name, tokens, start in zip(NAMES, rows, starts, strict=False)
        )
    )


class TestKnownGood:
    @pytest.mark.parametrize(
        "item",
        [
            pytest.param(
                said(text=" Paris, of course\n", accepted=("Rome", "Paris")), id="begins as accepted, after space"
            ),
            pytest.param(said(text=" Lyon", known=(known(" Lyon"),)), id="recorded, where nothing is accepted"),
            pytest.param(
                said(tokens=(7, 8, 9, 10, 11), known=(known(tokens=(7, 8, 9, 10)),)), id="recorded with fewer"
            ),
            pytest.param(said(tokens=(7, 8, 9, 10), known=(known(tokens=(7, 8, 9, 10, 11)),)), id="recorded with more"),
            pytest.param(
                said(text=None, tokens=(7, 8), known=(known(),)), id="recorded tokens, that nothing can decode"
            ),
            pytest.param(said(known=(known(), known("Paris", PLAIN, "cuda")), elsewhere=True), id="recorded elsewhere"),
        ],
    )
    def test_passes(self, item):
        findings, measured = judge("outputs.known-good", facts(item, said("not asked", text="anything")))
        assert findings == []
        assert [row["accepted"] for row in measured["texts"]] == [True, None]

    def test_a_text_without_tokens_is_no_recorded_one(self):
        item = said(text="", tokens=(), known=(known("", (5,)),), agreement=0.0)
        assert item.matched is False

    @pytest.mark.parametrize(
        ("item", "severity", "says"),
        [
            pytest.param(
                said(text="Lyon\n is", accepted=("Paris",), agreement=0.5),
                FAIL,
                "'The capital is' was continued with 'Lyon\\n is'; given the expected text, the model chooses 50% of "
                "its tokens, 90% are required",
                id="another text",
            ),
            pytest.param(
                said(text="Lyon", known=(known("Paris"),), agreement=0.9),
                WARN,
                "chooses 90% of its tokens: the same up to rounding",
                id="as it was recorded, up to rounding",
            ),
            pytest.param(
                said(text="Lyon", accepted=("Paris",)), FAIL, "was continued with 'Lyon'", id="nothing to weigh it by"
            ),
            pytest.param(
                said(text="Lyon", known=(known("Paris", device="cuda"),), elsewhere=True, agreement=0.3),
                WARN,
                "90% are required; recorded on another device class",
                id="recorded on another device only",
            ),
            pytest.param(
                said(text="Lyon", accepted=("P",), known=(known("Rome"),), elsewhere=True, agreement=0.3),
                FAIL,
                "recorded on another device class",
                id="recorded elsewhere, but accepted texts hold here",
            ),
            pytest.param(
                said(flaw="the chat template in x does not render", text=""),
                FAIL,
                "'The capital is' cannot be put to the model: the chat template in x does not render",
                id="a prompt that cannot be written",
            ),
        ],
    )
    def test_tells(self, item, severity, says):
        [finding], measured = judge("outputs.known-good", facts(item))
        assert finding.severity is severity
        assert says in finding.message
        assert "\n" not in finding.message
        assert measured["texts"][0]["accepted"] is (None if item.flaw else False)
        assert measured["texts"][0]["agreement"] == item.agreement

    def test_limits_of_the_matrix_hold(self):
        item = facts(said(text="Lyon", accepted=("Paris",), agreement=0.95))
        assert judge("outputs.known-good", item, limits={"agreement": Limit(fail=0.96)})[0][0].severity is FAIL
        assert judge("outputs.known-good", item, limits={"agreement": Limit(fail=0.5)})[0][0].severity is WARN
        assert judge("outputs.known-good", item, limits={"agreement": Limit(warn=0.94)})[0] == []

    def test_the_measurement_holds_both_texts(self):
        item = said(text=None, tokens=(1, 2), baseline=continuation("The capital is", text=" Rome"), chat=True)
        *_, [row] = self._measured(facts(item))
        assert row == {
            "prompt": "The capital is",
            "chat": True,
            "text": "",
            "baseline": " Rome",
            "accepted": None,
            "asked": False,
            "agreement": None,
            "tokens": [1, 2],
        }

    @staticmethod
    def _measured(texts: TextFacts):
        from checker.checks.texts import outputs_known_good
        from checker.registry import Limits

        said_so_far = []
        with pytest.raises(NotApplicable, match="names no accepted texts, and none were recorded"):
            said_so_far.extend(iter_into(outputs_known_good(texts, Limits({})), said_so_far))
        return [item.value for item in said_so_far]

    def test_without_a_tokenizer_nothing_can_be_read(self):
        with pytest.raises(Unavailable, match="no tokenizer in the checkpoint to read the answer to 'The capital is'"):
            judge("outputs.known-good", facts(said(text=None, accepted=("Paris",))))

    def test_a_reference_that_cannot_be_had_is_no_missing_baseline(self):
        item = said(accepted=("Paris",))
        assert judge("outputs.known-good", facts(item, unreferenced="no network"))[0] == []
        for check in ("outputs.degenerate", "outputs.likelihood"):
            with pytest.raises(Unavailable, match="no network"):
                judge(check, facts(item, unreferenced="no network"))

    def test_a_model_that_does_not_generate(self):
        [finding], measured = judge("outputs.known-good", TextFacts(flaw="RuntimeError: no cache"))
        assert finding.message == "the model runs but does not generate: RuntimeError: no cache"
        assert measured == {}
        for check in ("outputs.degenerate", "outputs.likelihood"):
            with pytest.raises(Unavailable, match=r"see outputs\.known-good"):
                judge(check, TextFacts(flaw="RuntimeError: no cache"))


def iter_into(verdict, kept):
    """Keep what was said before the end, as a worker does."""
    for item in verdict:
        kept.append(item)
    return []


ONE, TWO = (5,) * LENGTH, (5, 6) * (LENGTH // 2)
EIGHT = (1, 2, 3, 4, 5, 6, 7, 8) * 3
LATE = (*range(4), *(9, 8) * 10)  # 20 of 24
FEW = (1, 2, 3, 3, 1, 2, 2, 1, 3, 1, 1, 2) * 2
OTHER = tuple(range(50, 50 + LENGTH))
THIRD = tuple(range(400, 400 + LENGTH))


class TestDegenerate:
    @pytest.mark.parametrize(
        ("rows", "says"),
        [
            pytest.param((ONE, TWO, PLAIN), "2 of 3 prompts lead to a loop or to nothing", id="two of three loop"),
            pytest.param((EIGHT, LATE, ONE), "a cycle of 8 tokens that fills 100% of the text", id="the longest cycle"),
            pytest.param((LATE, LATE, OTHER), "a cycle of 2 tokens that fills 83%", id="after a beginning"),
            pytest.param((FEW, FEW, OTHER), "only 3 different tokens", id="few tokens without a cycle"),
            pytest.param(((5,) * 8, (6,) * 10, OTHER), "a cycle of 1 token ", id="short texts"),
        ],
    )
    def test_fails(self, rows, says):
        [finding], _ = judge("outputs.degenerate", beside(*rows))
        assert finding.severity is FAIL
        assert says in finding.message

    @pytest.mark.parametrize(
        "texts",
        [
            pytest.param(beside(PLAIN, OTHER, THIRD), id="healthy"),
            pytest.param(beside(ONE, OTHER, THIRD), id="one of three: a small 4-bit model does"),
            pytest.param(beside(ONE, TWO, EIGHT, theirs=(TWO, EIGHT, ONE)), id="the baseline loops as well"),
            pytest.param(beside(ONE, TWO, PLAIN, theirs=(ONE, OTHER, THIRD)), id="one more than the baseline"),
            pytest.param(beside((1, 2, 3, 4, 5, 6, 7, 8) * 2, (1, 1), (2,) * 7), id="too short, or not often enough"),
            pytest.param(beside((*range(9), *(9, 8) * 7), (*range(9), *(7,) * 15), PLAIN), id="not most of the text"),
            pytest.param(facts(said(tokens=ONE), said(tokens=OTHER)), id="no baseline, and one text is sound"),
            pytest.param(facts(said(tokens=ONE)), id="no baseline, and one prompt only"),
        ],
    )
    def test_passes(self, texts):
        assert judge("outputs.degenerate", texts)[0] == []

    def test_one_lost_prompt_of_one_is_a_warning(self):
        assert [finding.severity for finding in judge("outputs.degenerate", beside(ONE))[0]] == [WARN]

    def test_without_a_baseline_collapse_of_everything_is_a_warning(self):
        [finding], _ = judge("outputs.degenerate", facts(said(tokens=ONE), said(tokens=TWO)))
        assert finding.severity is WARN
        assert "no baseline tells" in finding.message

    def test_silence(self):
        silent = [replace(item, text=" \n", tokens=(2,)) for item in beside(PLAIN, OTHER, THIRD).texts]
        [finding], _ = judge("outputs.degenerate", facts(*silent))
        assert finding.severity is FAIL
        assert "'a fact' leads to no text" in finding.message
        theirs = [replace(item, baseline=continuation(item.prompt, (2,), "")) for item in silent]
        assert judge("outputs.degenerate", facts(*theirs))[0] == []

    def test_one_answer_to_everything(self):
        [finding], _ = judge("outputs.degenerate", beside(PLAIN, PLAIN, PLAIN))
        assert finding.severity is FAIL
        assert "all 3 prompts are continued alike" in finding.message
        assert judge("outputs.degenerate", beside(PLAIN, PLAIN, PLAIN, theirs=(ONE, ONE, ONE)))[0] == []
        assert judge("outputs.degenerate", beside(PLAIN, PLAIN))[0] == []

    @pytest.mark.parametrize(
        ("here", "there", "says"),
        [
            pytest.param(4.5, 2.0, "less certain", id="wider"),
            pytest.param(0.9, 2.0, "more certain", id="narrower"),
            pytest.param(3.9, 2.0, "", id="within the factor"),
            pytest.param(1.05, 2.0, "", id="within the factor, below"),
            pytest.param(0.25, 0.01, "", id="hardly any in either"),
            pytest.param(math.nan, 2.0, "", id="not finite, which outputs.finite tells"),
        ],
    )
    def test_entropy(self, here, there, says):
        texts = [
            replace(item, entropy=here, baseline=replace(item.baseline, entropy=there))
            for item in beside(PLAIN, OTHER, THIRD).texts
        ]
        findings, _ = judge("outputs.degenerate", facts(*texts))
        assert [finding.severity for finding in findings] == ([WARN] if says else [])
        assert all(says in finding.message for finding in findings)

    def test_limits_of_the_matrix_hold(self):
        late = beside(LATE, LATE, OTHER)
        assert judge("outputs.degenerate", late, limits={"loop": Limit(fail=0.9)})[0] == []
        [finding], _ = judge("outputs.degenerate", late, limits={"loop": Limit(warn=0.7, fail=0.9)})
        assert finding.severity is WARN


class TestLikelihood:
    @pytest.mark.parametrize(
        ("cost", "bits", "parameters", "expected"),
        [
            pytest.param(0.3, 4, 135e6, None, id="NF4 of a small model"),
            pytest.param(0.65, 4, 135e6, None, id="FP4 of a small model"),
            pytest.param(1.1, 4, 135e6, WARN, id="4 bits, small"),
            pytest.param(2.0, 4, 135e6, FAIL, id="4 bits, small, broken"),
            pytest.param(0.5, 4, 8e9, FAIL, id="4 bits, large"),
            pytest.param(0.5, 4, 2e9, WARN, id="4 bits, between"),
            pytest.param(0.04, 8, 135e6, None, id="8 bits, small"),
            pytest.param(0.3, 8, 135e6, FAIL, id="8 bits, small, broken"),
            pytest.param(0.05, 8, 8e9, WARN, id="8 bits, large"),
            pytest.param(0.3, 6, 135e6, None, id="6 bits count as 4"),
            pytest.param(2.0, 3, 135e6, WARN, id="3 bits"),
            pytest.param(2.0, 2, 135e6, None, id="2 bits"),
            pytest.param(1.5, 1, 135e6, None, id="fewer bits count as 2"),
            pytest.param(1.5, None, 0, None, id="nothing known"),
            pytest.param(8.0, None, 0, FAIL, id="nothing known, and broken"),
        ],
    )
    def test_bars_go_by_bits_and_size(self, cost, bits, parameters, expected):
        texts = replace(beside(PLAIN, OTHER, THIRD, cost=cost), bits=bits, parameters=int(parameters))
        findings, measured = judge("outputs.likelihood", texts)
        assert [finding.severity for finding in findings] == ([] if expected is None else [expected])
        row = measured["outputs.likelihood"]
        assert row["tokens"] == 3 * LENGTH
        assert row["baseline_nll"] == 1.0
        assert row["nll"] == pytest.approx(1.0 + 1.1 * cost)
        assert row["delta"]["value"] == pytest.approx(1.1 * cost)
        assert row["delta"]["low"] < row["delta"]["value"] < row["delta"]["high"]

    def test_a_single_token_does_not_decide(self):
        item = beside(PLAIN).texts[0]
        assert judge("outputs.likelihood", facts(replace(item, losses=(*STEADY[:-1], 60.0))))[0] == []

    def test_an_older_reference_gives_a_wider_interval(self):
        texts = beside(PLAIN, OTHER, THIRD, cost=1.2)
        older = facts(*(replace(item, baseline=replace(item.baseline, losses=())) for item in texts.texts))
        wide, narrow = (judge("outputs.likelihood", one)[1]["outputs.likelihood"]["delta"] for one in (older, texts))
        assert wide["value"] == pytest.approx(narrow["value"])
        assert wide["high"] - wide["low"] > narrow["high"] - narrow["low"]

    def test_limits_of_the_matrix_hold(self):
        texts = beside(PLAIN, OTHER, THIRD, cost=0.3)
        assert judge("outputs.likelihood", texts, limits={"delta": Limit(fail=0.2)})[0][0].severity is FAIL
        assert judge("outputs.likelihood", texts, limits={"delta": Limit(warn=0.2)})[0][0].severity is WARN

    def test_logits_that_are_not_finite(self):
        item = beside(PLAIN).texts[0]
        with pytest.raises(Unavailable, match=r"see outputs\.finite"):
            judge("outputs.likelihood", facts(replace(item, losses=(math.nan,) * LENGTH)))

    @pytest.mark.parametrize(
        ("texts", "reason"),
        [
            pytest.param(facts(said()), "no text of the baseline's", id="no baseline"),
            pytest.param(facts(), "no prompt was continued", id="no texts"),
            pytest.param(
                replace(beside(ONE, ONE), language=False), "does not model the probe text", id="random weights"
            ),
            pytest.param(
                facts(said(baseline=continuation("x", (1, 2)), losses=(9.0, 9.0))), "2 tokens, too few", id="few tokens"
            ),
        ],
    )
    def test_does_not_apply(self, texts, reason):
        with pytest.raises(NotApplicable, match=reason):
            judge("outputs.likelihood", texts)


def test_random_weights_are_not_judged_by_their_loops():
    with pytest.raises(NotApplicable, match="does not model the probe text"):
        judge("outputs.degenerate", replace(beside(ONE, ONE, ONE), language=False))
