"""Asynchronous successive halving on sequences worked out by hand."""

from __future__ import annotations

from pixeltune.search.scheduler import Rungs
from pixeltune.space import Asha


def test_the_better_half_of_those_seen_so_far_goes_on() -> None:
    rungs = Rungs(Asha((100,), reduction=2))
    # value → whether it goes on: rank among those seen so far, itself included, against ⌈seen / 2⌉
    sequence = [(2.0, True), (3.0, False), (2.5, True), (1.0, True), (2.2, True), (2.4, False), (0.5, True)]
    for number, (value, goes_on) in enumerate(sequence):
        assert (rungs.judge(str(number), {100: value}) is None) is goes_on, (number, value)


def test_reduction_by_three() -> None:
    rungs = Rungs(Asha((100,), reduction=3))
    goes_on = [rungs.judge(str(n), {100: value}) is None for n, value in enumerate([5.0, 6.0, 4.0, 4.5, 3.0, 3.5, 3.2])]
    # seen 1..7: 1, 1, 1, 2, 2, 2, 3 go on
    assert goes_on == [True, False, True, True, True, True, True]


def test_equal_values_share_a_rank() -> None:
    rungs = Rungs(Asha((100,)))
    assert [rungs.judge(name, {100: 2.0}) for name in "abcd"] == [None] * 4


def test_only_rungs_judge_and_each_rung_for_itself() -> None:
    rungs = Rungs(Asha((100, 200)))
    assert rungs.judge("a", {100: 1.0}) is None
    assert rungs.judge("b", {100: 0.9}) is None
    assert rungs.judge("b", {100: 0.9, 150: 99.0}) is None, "150 is no rung"
    assert rungs.judge("a", {100: 1.0, 200: 0.8}) is None, "the first at the rung of 200"
    reason = rungs.judge("b", {100: 0.9, 150: 0.88, 200: 0.85})
    assert reason == "rank 2 of 2 at the rung of 200 images, where the best 1 go on"


def test_a_value_at_a_rung_is_the_best_so_far() -> None:
    rungs = Rungs(Asha((100, 200)))
    assert rungs.judge("a", {100: 3.0, 200: 2.0}) is None
    assert rungs.judge("b", {50: 9.0, 100: 1.9, 200: 5.0}) is None, "1.9 at 100 is its number"
    assert rungs.judge("c", {100: 4.0, 200: 1.95, 300: 0.1}) is None, "300 is no rung"
    assert rungs.judge("d", {100: 2.5, 200: 2.5}) is not None


def test_a_trial_that_comes_again_replaces_its_own_value() -> None:
    rungs = Rungs(Asha((100,)))
    rungs.remember("a", {100: 1.0, 200: 0.1})
    rungs.remember("b", {50: 2.0})
    assert rungs.judge("c", {100: 1.5}) is not None, "2nd of 2"
    assert rungs.judge("a", {100: 1.0}) is None, "still two values"
    assert rungs.judge("a", {100: 9.0}) is not None, "now 2nd of 2"
    assert rungs.judge("c", {100: 1.5}) is None
