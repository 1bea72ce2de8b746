"""The language model learns to own up where its answer would be wrong, and to answer all the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from training import dataset, language

SORRY, THAT, IS, TEN, ELEVEN = 4, 5, 6, 7, 8
CARD = 9
FRAMES = 40
PADDING = dataset.PADDING


def conversation(*words: tuple[int, int]) -> torch.Tensor:
    """What to write in each frame, [1, frames]."""
    text = torch.full((1, FRAMES), PADDING)
    for frame, word in words:
        text[0, frame] = word
    return text


def heard_at(*frames: int) -> torch.Tensor:
    """Words of the person, [1, frames]."""
    heard = torch.full((1, FRAMES), -1)
    heard[0, list(frames)] = 1
    return heard


def logits_of(text: torch.Tensor, sure: float = 8.0) -> torch.Tensor:
    """Of a model that writes ``text``, [1, frames, card]."""
    return torch.nn.functional.one_hot(text, CARD).float() * sure


SUM = conversation((10, THAT), (11, dataset.BOUNDARY), (12, IS), (14, TEN))
ASKED = heard_at(2, 4, 6)


def test_a_right_answer_costs_nothing() -> None:
    loss, wrong = language.owning_up_loss(logits_of(SUM), SUM, ASKED, SORRY)
    assert loss == 0
    assert wrong == 0


def test_the_first_word_owns_up_for_a_wrong_last_one() -> None:
    """And nothing else has to change."""
    logits = logits_of(conversation((10, THAT), (12, IS), (14, ELEVEN))).requires_grad_()
    loss, wrong = language.owning_up_loss(logits, SUM, ASKED, SORRY)
    assert wrong == 1
    loss.backward()
    assert logits.grad is not None
    assert logits.grad[0].abs().sum(-1).nonzero()[:, 0].tolist() == [10]
    assert logits.grad[0, 10, SORRY] < 0 < logits.grad[0, 10, THAT]


@pytest.mark.parametrize("begins", [SORRY, PADDING, dataset.BOUNDARY])
def test_an_answer_that_is_owned_up_to_or_late_is_not_wrong_for_that(begins: int) -> None:
    """Else owning up would be learnt for its own sake. The second best decides: what would be said."""
    logits = logits_of(SUM)
    logits[0, 10, begins] = 12.0
    assert language.owning_up_loss(logits, SUM, ASKED, SORRY)[1] == 0


def test_what_is_not_to_be_understood_needs_no_other_beginning() -> None:
    strange = conversation((10, SORRY), (12, IS))
    loss, wrong = language.owning_up_loss(logits_of(conversation((10, SORRY), (12, TEN))), strange, ASKED, SORRY)
    assert loss == 0
    assert wrong == 0


def test_two_answers_are_told_apart_by_the_person_between_them() -> None:
    both = conversation((5, THAT), (7, TEN), (25, THAT), (27, ELEVEN))
    logits = logits_of(conversation((5, THAT), (7, TEN), (25, THAT), (27, TEN)))
    loss, wrong = language.owning_up_loss(logits, both, heard_at(1, 15, 18), SORRY)
    assert wrong == pytest.approx(0.5)
    assert loss > 0


def test_a_count_that_goes_on_while_the_person_speaks_begins_nothing() -> None:
    count = conversation((5, THAT), (13, IS), (21, TEN))
    logits = logits_of(conversation((5, THAT), (13, IS), (21, ELEVEN)))
    assert language.owning_up_loss(logits, count, heard_at(1, 15), SORRY)[1] == 0


def test_owning_up_pays_where_an_answer_is_wrong_nearly_half_the_time_and_not_once_in_five() -> None:
    """The best that a model can do which cannot tell ten from eleven: the balance of its two losses."""
    for mistaken, owns_up in ((0.45, True), (0.2, False)):
        logits = logits_of(SUM).requires_grad_()
        optimizer = torch.optim.Adam([logits], lr=0.05)
        chance = torch.Generator().manual_seed(0)
        for _ in range(600):
            wrong = bool(torch.rand((), generator=chance) < mistaken)
            wanted = conversation((10, THAT), (12, IS), (14, ELEVEN if wrong else TEN))
            with torch.no_grad():
                logits[0, 14] = logits_of(SUM)[0, 14]  # what it says in the end, it cannot know better
            loss = language.owning_up_loss(logits, wanted, ASKED, SORRY)[0]
            loss = loss + language.writing_loss(logits, wanted)[0]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert (int(logits[0, 10].argmax()) == SORRY) == owns_up, mistaken


def test_a_mean_of_before_and_after_has_so_much_of_each() -> None:
    lm = torch.nn.ModuleDict({"text": torch.nn.Linear(3, 2), "norm": torch.nn.LayerNorm(2)})
    after = {name: weights.clone() for name, weights in lm.state_dict().items()}
    before = {name: torch.randn_like(weights).bfloat16() for name, weights in after.items()}
    language.blend(lm, before, 0.3)  # type: ignore[arg-type] # of a model, all that counts here are its weights
    for name, weights in lm.state_dict().items():
        torch.testing.assert_close(weights, 0.7 * after[name] + 0.3 * before[name].float())


@pytest.mark.parametrize(("first_word", "share"), [(9, (0.3, 0.8)), (60, (0.0, 0.2))])
def test_a_conversation_that_begins_at_once_is_mostly_learnt_from_its_first_frame(
    first_word: int, share: tuple[float, float]
) -> None:
    """No stretch that begins later is like it."""
    frames = 200
    heard = np.full((1, frames), -1, dtype=np.int16)
    heard[0, first_word] = 1
    made = dataset.Conversations(
        person=np.arange(frames, dtype=np.float16)[None, None],
        said=heard,
        text=np.zeros((1, frames), dtype=np.int16),
        own=np.zeros((1, 6, frames), dtype=np.int16),
        heard=heard,
    )
    random = np.random.default_rng(0)
    begins = [language.window(made, 0, 100, [], random)[1][0, 0] for _ in range(400)]
    assert share[0] < begins.count(0) / len(begins) < share[1]
