"""From channels to directions."""

from datetime import UTC, datetime

import pytest

from tailorbird.repository.channels import Live
from tailorbird.serving.hub import Direction
from tailorbird.serving.rollout.control import Channels
from tailorbird.serving.rollout.wanted import wanted

SINCE = datetime(2026, 1, 1, tzinfo=UTC)
BOTH = Channels(weight=0.2, shadow="shadow")


def points(**channels):
    return [Live(channel, "tiny", version, SINCE) for channel, version in channels.items()]


@pytest.mark.parametrize(
    ("channels", "rules", "direction"),
    [
        ({}, BOTH, Direction(3)),
        ({"canary": 4}, BOTH, Direction(3, 4, 0.2)),
        ({"canary": 4}, Channels(), Direction(3)),  # nobody asked for one
        ({"canary": 3}, BOTH, Direction(3)),  # it is live already
        ({"shadow": 5}, BOTH, Direction(3, shadow=5)),
        ({"shadow": 5}, Channels(weight=0.2), Direction(3)),
        ({"shadow": 3}, BOTH, Direction(3)),
        ({"canary": 4, "shadow": 5}, BOTH, Direction(3, 4, 0.2, 5)),
        ({"canary": 4, "shadow": 4}, BOTH, Direction(3, 4, 0.2)),  # never both
        ({"next": 4, "canary": 5}, Channels(canary="next", weight=1.0), Direction(3, 4, 1.0)),
    ],
)
def test_a_models_direction(channels, rules, direction):
    assert wanted({"tiny": 3}, points(**channels), rules) == {"tiny": direction}


def test_models_do_not_mix():
    others = [Live("canary", "other", 9, SINCE)]
    assert wanted({"tiny": 3, "other": 1}, others, BOTH) == {"tiny": Direction(3), "other": Direction(1, 9, 0.2)}


def test_channels_of_a_model_that_is_not_served_say_nothing():
    assert wanted({}, points(canary=4), BOTH) == {}
