"""The parts of the page that take time, chance or numbers as arguments, each alone."""

from __future__ import annotations

from tests.support.page_modules import PageModules


def test_liveness(modules: PageModules) -> None:
    """When silence is worth a question, a word, and an end; what a demand changes; what a sleep changes."""

    def looks(script: str) -> list[str]:
        """Of each look: its time, and what it says. One look each half second from 0 on to 5 s, unless dead."""
        found: list[str] = modules.run(
            "connection/liveness",
            f"""
            const path = new m.Liveness(0);
            const found = [];
            for (let now = 500; now <= 5000; now += 500) {{
              {script}
              const said = Object.entries(path.look(now)).filter(([, is]) => is).map(([name]) => name);
              for (const name of said) found.push(`${{now}} ${{name}}`);
              if (said.includes('dead')) break;
            }}
            return found;
            """,
        )
        return found

    silence = ["1000 ask", "2000 ask", "2500 doubtful", "3000 ask", "3000 doubtful", "3500 doubtful", "3500 dead"]
    assert looks("") == silence
    assert looks("path.heard(now);") == []
    assert looks("if (now === 2000) path.heard(now);") == [
        "1000 ask",
        "3000 ask",
        "4000 ask",
        "4500 doubtful",
        "5000 ask",
        "5000 doubtful",
    ]
    # A demand in the middle of a silence shortens it, and never lengthens it.
    assert looks("if (now === 500) path.demand(now);") == ["1000 ask", "1500 dead"]
    assert (looks("if (now === 3000) path.demand(now);"))[-1] == "3500 dead"
    # What was under way when it was made proves nothing; what comes later does, and so does an answer.
    assert (looks("if (now === 500) { path.demand(now); path.heard(now + 100); }"))[-1] == "1500 dead"
    alive = "if (now === 500) path.demand(now); path.heard(now); "
    assert looks(alive) == []
    assert looks("if (now === 500) path.demand(now); if (now === 1000) path.answered(now);") == [
        "2000 ask",
        "3000 ask",
        "3500 doubtful",
        "4000 ask",
        "4000 doubtful",
        "4500 doubtful",
        "4500 dead",
    ]
    # On a slow path it may take longer.
    slow = "if (now === 500) path.demand(now, m.proofWithin_ms(500)); if (now === 2000) path.heard(now);"
    assert (looks(slow))[:2] == ["1000 ask", "3000 ask"]
    # A device that has slept for an hour is not dead for an hour: it is asked.
    slept = """
      const path = new m.Liveness(0);
      path.heard(100);
      path.look(500);
      const slept = path.slept(3_600_000);
      const asked = path.demand(3_600_000);
      return [slept, asked, path.demand(3_600_100), path.look(3_600_500).dead, path.look(3_601_000).dead];
    """
    assert modules.run("connection/liveness", slept) == [True, True, False, False, True]
    early = "const path = new m.Liveness(0); path.demand(3_600_000); return path.look(3_600_100).dead;"
    assert modules.run("connection/liveness", early) is False


def test_sequence(modules: PageModules) -> None:
    """Each number counts once, in whatever order; a hole is waited for until it cannot be filled any more."""
    script = """
      const heard = new m.Sequence();
      const first = [1, 2, 2, 4, 1, 3, 4, 5].map((seq) => heard.take(seq));
      const after = heard.last;
      const odd = [undefined, null, 1.5, '7'].map((seq) => heard.take(seq));
      const late = new m.Sequence();
      for (let seq = 10; seq < 10 + 256; seq += 1) late.take(seq);
      const waiting = late.last;
      late.take(10 + 256);
      return { first, after, odd, waiting, given_up: late.last, again: late.take(20) };
    """
    assert modules.run("conversation/sequence", script) == {
        "first": [True, True, False, True, False, True, False, True],
        "after": 5,
        "odd": [True] * 4,
        "waiting": 0,
        "given_up": 266,
        "again": False,
    }


def test_ticket(modules: PageModules) -> None:
    """It is good for the grace that the server gives, from the loss on, and gone when the server says so."""
    script = """
      const ticket = new m.Ticket();
      const before = [ticket.held, ticket.valid(0), ticket.grace_ms];
      ticket.take('s', { token: 't', grace_s: 30 }, 0);
      const held = [ticket.held, ticket.valid(9e9), ticket.present(7)];
      ticket.lost(1000);
      const lost = [ticket.valid(34_900), ticket.valid(35_100)];
      ticket.take('s', { token: 'u', grace_s: 30 }, 20_000);
      const anew = [ticket.valid(53_900), ticket.valid(54_100), ticket.present(8).token];
      const refused = ['unknown_session', 'session_ended', 'resume_refused', 'unreachable', 'draining']
        .filter((code) => ticket.refusedBy({ code }));
      ticket.drop();
      const none = new m.Ticket();
      none.take('s', null, 0);
      return { before, held, lost, anew, refused, dropped: ticket.held, none: none.held };
    """
    assert modules.run("conversation/ticket", script) == {
        "before": [False, False, 0],
        "held": [True, True, {"session": "s", "token": "t", "last_seq": 7}],
        "lost": [True, False],
        "anew": [True, False, "u"],
        "refused": ["unknown_session", "session_ended", "resume_refused"],
        "dropped": False,
        "none": False,
    }


def test_backoff(modules: PageModules) -> None:
    """Doubling, spread, bounded; with a session that waits: at once, and never long; a server's wish comes first."""
    script = """
      const waits = (how, count, patience) => {
        const trouble = new m.Trouble(0, patience);
        return Array.from({ length: count }, () => trouble.next(0, 1, how));
      };
      const late = new m.Trouble(0, 90_000);
      return {
        anew: waits({}, 7),
        hurry: waits({ hurry: true }, 6),
        asked: waits({ hurry: true, retryAfterS: 3 }, 2),
        spread: m.backoffMs(0, 0),
        given_up: new m.Trouble(0).next(59_900, 0),
        patient: late.next(59_900, 0),
      };
    """
    assert modules.run("conversation/backoff", script) == {
        "anew": [500, 1000, 2000, 4000, 8000, 8000, 8000],
        "hurry": [0, 500, 1000, 2000, 2000, 2000],
        "asked": [3000, 3000],
        "spread": 250,
        "given_up": None,
        "patient": 250,
    }


def test_packets_that_leave_and_stop_again_do_not_count(modules: PageModules) -> None:
    """Firefox sends a few before its sound card runs, and then none for up to two seconds."""
    at_once, after_a_stop, never = modules.run(
        "connection/flow",
        """
        const when = (counts) => {
          const steadiness = new m.Steadiness();
          return 40 * counts.findIndex((packets, look) => steadiness.look(40 * look, packets));
        };
        const steady = Array.from({ length: 100 }, (_, look) => 2 * look);
        const stopped = Array(50).fill(8);
        return [steady, [0, 2, 4, 6, ...stopped, ...steady.map((packets) => 8 + packets)], stopped].map(when);
        """,
    )
    assert at_once == 40 + 320
    assert after_a_stop == 40 * 54 + at_once
    assert never < 0


def test_lines_of_two_speakers_stand_in_the_order_in_which_they_were_said(modules: PageModules) -> None:
    """Words of the user come late; a line goes on until its speaker pauses, whatever the other says meanwhile."""
    script = """
      const placed = (words) => {
        const said = new m.Utterances();
        const lines = [];
        for (const [side, start, end, text] of words) {
          const { line, before, fresh } = said.place(side, start, end);
          line.text = (line.text ?? `${side}:`) + ` ${text}`;
          if (fresh) lines.splice(before ? lines.indexOf(before) : lines.length, 0, line);
        }
        return lines.map(({ text }) => text);
      };
      const you = (start, text) => ['you', start, start + 200, text];
      const model = (at, text) => ['model', at, at, text];
      return {
        late: placed([model(3000, 'that'), you(1000, 'what'), model(3200, 'is'), you(1300, 'is'), you(4000, 'thanks')]),
        within: placed([
          model(1000, 'one'), model(1600, 'two'), you(1500, 'stop'), model(2200, 'three'), model(4000, 'four'),
        ]),
        pause: placed([you(0, 'count'), you(2000, 'please')]),
        together: placed([model(1000, 'a'), you(1000, 'b')]),
        between: placed([model(0, 'a'), model(5000, 'b'), you(2000, 'c'), you(7000, 'd')]),
      };
    """
    assert modules.run("page/utterances", script) == {
        "late": ["you: what is", "model: that is", "you: thanks"],
        "within": ["model: one two three", "you: stop", "model: four"],
        "pause": ["you: count", "you: please"],
        "together": ["model: a", "you: b"],
        "between": ["model: a", "you: c", "model: b", "you: d"],
    }
