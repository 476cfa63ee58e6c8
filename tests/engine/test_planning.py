"""What the step loop asks of drafting."""

from __future__ import annotations

from atlasd.engine.inprocess import Outputs, request, run
from atlasd.engine.planning import Planning
from atlasd.engine.steps import Engine
from tests.engine.hash_decoder import HashDecoder
from tests.engine.oracle import OracleController


class Strict(OracleController):
    """As the real one, has no prices for fewer rows than none."""

    def plan(self, streams, room, limits=None):
        assert 0 <= room <= 64
        return super().plan(streams, room, limits)


def test_many_short_prompts_at_once_leave_no_room_and_harm_no_drafter(caplog):
    """Each joins a step with all its rows, and together they are more than a step drafts for."""
    outputs = Outputs()
    planning = Planning(Strict({}, 50, 0))
    engine = Engine(HashDecoder(slots=16, chunk=1), outputs.take, planning=planning)
    for number in range(1, 17):
        prompt = [(number * step) % 50 for step in range(1, 15)]
        engine.submit(request(number, prompt, max_tokens=4))
    run(engine)
    assert len(outputs) == 16
    assert planning.on
    assert caplog.text == ""
