"""What one speaker says is cut at pauses, and at gaps between words where no pause comes."""

from __future__ import annotations

from rtc_server.protocols.events import Word
from rtc_server.rooms.cutter import LONG_MS, LONGEST_MS, Cut, Cutter

DELAY_MS = 960
FRAME_MS = 80


def listened(cutter: Cutter, words: list[Word], speech: list[tuple[int, int]], until_ms: int) -> list[tuple[int, Cut]]:
    """Each cut with the time at which it was made; words come by the model's delay, pauses are told 400 ms late."""
    cuts = []
    for at_ms in range(FRAME_MS, until_ms, FRAME_MS):
        for start, end in speech:
            if start <= at_ms - FRAME_MS < start + FRAME_MS:
                cutter.started(start)
            if end + 400 <= at_ms < end + 400 + FRAME_MS:
                cutter.ended(end)
        for word in words:
            if word.end_ms + DELAY_MS <= at_ms < word.end_ms + DELAY_MS + FRAME_MS:
                cutter.word(word)
        cuts += [(at_ms, cut) for cut in cutter.heard(at_ms)]
    return cuts


def spoken(text: str, start_ms: int, each_ms: int = 300, gap_ms: int = 40) -> list[Word]:
    return [
        Word(word, start_ms + at * each_ms, start_ms + (at + 1) * each_ms - gap_ms)
        for at, word in enumerate(text.split())
    ]


def test_an_utterance_is_cut_when_its_last_word_can_be_there() -> None:
    words = spoken("good morning to all", 1000)
    ((at_ms, cut),) = listened(Cutter(DELAY_MS), words, [(960, 2200)], 6000)
    assert cut == Cut("good morning to all", 1000, 2160)
    assert 2200 + DELAY_MS <= at_ms <= 2200 + DELAY_MS + 320


def test_an_utterance_is_cut_at_once_when_its_words_are_said_to_be_there() -> None:
    cutter = Cutter(DELAY_MS)
    cutter.started(960)
    for word in spoken("good morning to all", 1000):
        cutter.word(word)
    cutter.ended(2200)
    assert cutter.heard(2640) == []
    cutter.complete(2160)
    assert cutter.heard(2640) == [], "it was told of less than that"
    cutter.complete(2200)
    assert cutter.heard(2640) == [Cut("good morning to all", 1000, 2160)]


def test_what_is_said_after_a_pause_is_another_utterance() -> None:
    first, second = spoken("good morning", 1000), spoken("how are you", 2200)
    cuts = listened(Cutter(DELAY_MS), first + second, [(960, 1600), (2160, 3100)], 8000)
    assert [cut.text for _, cut in cuts] == ["good morning", "how are you"]


def test_words_that_a_model_writes_where_there_is_no_speech_are_none() -> None:
    cuts = listened(Cutter(DELAY_MS), spoken("good morning", 1000) + spoken("so", 5000), [(960, 1600)], 9000)
    assert [cut.text for _, cut in cuts] == ["good morning"]


def test_words_that_come_late_are_not_lost() -> None:
    """The model was held up: its last word is an utterance of its own."""
    cutter = Cutter(DELAY_MS)
    first, second = spoken("good morning", 1000)
    cutter.started(960)
    cutter.word(first)
    cutter.ended(1600)
    assert [cut.text for cut in cutter.heard(3000)] == ["good"]
    cutter.word(second)
    assert [cut.text for cut in cutter.heard(4000)] == ["morning"]


def test_without_a_detector_a_silence_of_words_ends_an_utterance() -> None:
    cuts = listened(Cutter(DELAY_MS, detects=False), spoken("good morning", 1000), [], 6000)
    assert [cut.text for _, cut in cuts] == ["good morning"]


def test_a_speaker_who_does_not_pause_is_cut_at_a_gap() -> None:
    """Listeners do not wait for the end of a long story: nothing is lost of it either."""
    before, after = spoken(" ".join(["one"] * 20), 500), spoken(" ".join(["two"] * 20), 500 + 20 * 300 + 200)
    cuts = listened(Cutter(DELAY_MS), before + after, [(480, 13_000)], 20_000)
    assert cuts[0][1].text == " ".join(["one"] * 20)
    assert cuts[0][0] < 500 + LONG_MS + DELAY_MS + 1000
    assert " ".join(cut.text for _, cut in cuts).split() == ["one"] * 20 + ["two"] * 20


def test_a_speaker_who_leaves_no_gap_is_cut_in_any_case() -> None:
    words = spoken(" ".join(["word"] * 80), 500, each_ms=300, gap_ms=0)
    cuts = listened(Cutter(DELAY_MS), words, [(480, 24_500)], 30_000)
    assert max(cut.end_ms - cut.start_ms for _, cut in cuts) <= LONGEST_MS + 300
    assert " ".join(cut.text for _, cut in cuts).split() == ["word"] * 80


def test_noise_that_is_no_words_is_no_utterance() -> None:
    assert listened(Cutter(DELAY_MS), [], [(960, 2200)], 6000) == []


def test_sound_is_cut_by_the_detector_alone() -> None:
    """For a translator that hears for itself."""
    cuts = listened(Cutter(None), [], [(960, 2200), (4000, 24_000)], 26_000)
    assert [(cut.text, cut.start_ms) for _, cut in cuts][:2] == [("", 960), ("", 4000)]
    assert all(cut.end_ms - cut.start_ms <= LONGEST_MS + FRAME_MS for _, cut in cuts)
    assert cuts[-1][1].end_ms == 24_000


def test_what_was_said_is_not_lost_with_its_speaker() -> None:
    cutter = Cutter(DELAY_MS)
    cutter.started(960)
    for word in spoken("good morning", 1000):
        cutter.word(word)
    assert cutter.finish() == [Cut("good morning", 1000, 1560)]
    assert cutter.finish() == []
