import pytest

from mtlrank.errors import ConfigError
from pipelines.cron import with_seconds


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("0 3 * * *", "0 0 3 * * *"),
        ("  */15   0-6,22 1,15 JAN-mar Mon-Fri ", "0 */15 0-6,22 1,15 JAN-mar Mon-Fri"),
        ("59 23 31 12 6", "0 59 23 31 12 6"),
        ("5/10 3 ? * *", "0 5/10 3 ? * *"),
        ("30 0 3 * * *", "30 0 3 * * *"),
        ("0 3 29 2 *", "0 0 3 29 2 *"),
        ("0 3 30 2,4 *", "0 0 3 30 2,4 *"),
        ("0 3 31 */2 *", "0 0 3 31 */2 *"),
        ("0 3 31 6/2 *", "0 0 3 31 6/2 *"),  # August
        ("0 3 30 feb mon", "0 0 3 30 feb mon"),  # every Monday: one of the two days suffices
    ],
)
def test_five_fields_get_seconds(cron, expected):
    assert with_seconds(cron) == expected


@pytest.mark.parametrize(
    ("cron", "words"),
    [
        ("", "with 0 fields: expected minute, hour"),
        ("0 3 * *", "with 4 fields"),
        ("daily", "with 1 fields"),
        ("0 0 3 * * * 2026", "with 7 fields"),
        ("60 3 * * *", "'60' is not a valid minute. Expected 0 to 59"),
        ("0 24 * * *", "'24' is not a valid hour"),
        ("0 3 0 * *", "'0' is not a valid day of the month. Expected 1 to 31"),
        ("0 3 * 13 *", "'13' is not a valid month"),
        ("0 3 * * 7", "'7' is not a valid day of the week. Expected 0 to 6"),
        ("0 3 * * noday", "'noday' is not a valid day of the week"),
        ("0 9-3 * * *", "'9-3' is not a valid hour"),
        ("*/0 3 * * *", "'*/0' is not a valid minute"),
        ("*/00 3 * * *", "'*/00' is not a valid minute"),
        ("-5 3 * * *", "'-5' is not a valid minute"),
        ("1,,2 3 * * *", "'' is not a valid minute"),
        ("٣ 3 * * *", "'٣' is not a valid minute"),
        ("٣ 0 3 * * *", "'٣' is not a valid second"),
        ("*/٣ 3 * * *", "is not a valid minute"),
        ("0 3 30 2 *", "none of these months has a day 30, so no run would ever start"),
        ("0 3 31 2,apr,jun ?", "none of these months has a day 31"),
        ("0 3 31 4-6/2 *", "none of these months has a day 31"),
        ("0 3 30-31 feb *", "none of these months has a day 30"),
        ("61 0 3 * * *", "'61' is not a valid second"),
        ("* * * * * *", "starts with '*' for the second of the minute"),
        ("*/10 0 3 * * *", "Expected one number there, or five fields without seconds."),
    ],
)
def test_a_bad_expression_is_one_line(cron, words):
    with pytest.raises(ConfigError) as caught:
        with_seconds(cron)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
