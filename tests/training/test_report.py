"""An evaluation says of each goal whether it is met."""

from __future__ import annotations

import json
from dataclasses import replace

from training.calls import Pace, pace
from training.disturbance import FalseAnswer
from training.examination import Finding, Understood
from training.report import Disturbance, Evaluation, Hearing, Result


def found(right: int, wrong: int, delay_s: float = 0.4) -> list[Finding]:
    said = [Finding("sums", "one plus one", "m6", "that is two", "that is two", True, delay_s=delay_s)] * right
    return said + [Finding("sums", "one plus one", "m6", "that is two", "yes", False, "other words", delay_s)] * wrong


def goals(evaluation: Evaluation) -> dict[str, str]:
    """The last table: what it says of each."""
    lines = "\n".join(evaluation.lines(failures=2)).rpartition("found\n")[2].splitlines()
    return {line[:44].strip(): line.split()[-1] for line in lines}


def test_goals_are_met_or_missed() -> None:
    stops = [Finding("stop", "stop", "m6", "", "", index > 0, delay_s=0.3) for index in range(20)]
    evaluation = Evaluation(
        [
            Result("clean", found(95, 5) + stops, 1.0, Pace(100, 1.0, 20.0, 0.98, 0, 0, 0)),
            Result("telephone", found(89, 11), 1.0),
            Result("room", found(1, 9), 1.0),
        ],
        Disturbance(300.0, [FalseAnswer("music", 3.0, "yes")] * 2),
        Hearing(100, 0.98, [("two", "ten")] * 5),
    )
    assert goals(evaluation) == {
        "right answers, clean": "met",
        "wrong answers, clean": "missed",
        "stop heard": "met",
        "delay to first sound, median": "met",
        "frames in time, clean": "missed",
        "right answers, telephone": "missed",
        "wrong answers, telephone": "missed",
        "false answers in ten minutes": "missed",
        "heard as written (own voice: 98.0 %)": "met",
    }


def test_each_voice_has_its_figures_and_its_goals() -> None:
    """To own up is not right, but no wrong answer either; a stop has no answer."""
    finding = Finding("sums", "one plus one", "piper:joe", "that is two", "", False)
    found_by_joe = [
        *[replace(finding, got="that is two", right=True)] * 17,
        *[replace(finding, got="sorry i did not understand that", why="other words")] * 2,
        replace(finding, why="no answer"),
        replace(finding, topic="stop", got="three", why="went on writing"),
    ]
    evaluation = Evaluation([Result("telephone", found_by_joe + found(9, 1), 1.0)])
    assert evaluation.results[0].by_voice == {
        "joe": Understood(20, 0.85, 0.0, 0.1),
        "espeak-ng": Understood(10, 0.9, 0.1, 0.0),
    }
    assert goals(evaluation) == {
        "right answers, telephone, joe": "met",
        "wrong answers, telephone, joe": "met",
        "right answers, telephone": "met",
        "wrong answers, telephone": "missed",
    }
    assert evaluation.plain()["conditions"]["telephone"]["by_voice"]["joe"]["owned_up"] == 0.1


def test_failures_are_shown_with_what_was_said() -> None:
    lines = list(Evaluation([Result("clean", found(1, 5), 1.0)]).lines(failures=2))
    shown = [line for line in lines if "'one plus one' (m6): 'that is two', got 'yes': other words" in line]
    assert len(shown) == 2


def test_json_holds_everything_but_sound() -> None:
    plain = json.loads(json.dumps(Evaluation([Result("clean", found(1, 1), 1.0)]).plain()))
    assert plain["conditions"]["clean"]["figures"]["by_topic"] == {"sums": [1, 2]}
    assert len(plain["conditions"]["clean"]["findings"]) == 2


def test_pace_is_what_grew_between_two_looks_at_the_metrics() -> None:
    before = {"rtc_step_seconds_count": 10.0, "rtc_step_seconds_bucket": 9.0, "rtc_step_seconds_sum": 1.0}
    after = {
        "rtc_step_seconds_count": 30.0,
        "rtc_step_seconds_bucket": 28.0,
        "rtc_step_seconds_sum": 1.4,
        "rtc_frame_seconds_count": 50.0,
        "rtc_frame_seconds_bucket": 49.0,
        "rtc_frames_dropped_total": 3.0,
    }
    made = pace(before, after)
    assert (made.steps, made.steps_in_time, made.frames_in_time, made.frames_dropped) == (20, 0.95, 0.98, 3)
    assert round(made.step_mean_ms) == 20
