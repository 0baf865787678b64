"""Numbers and their nouns."""

from protein_model.wording import counted


def test_one_of_a_thing_is_not_called_by_its_plural():
    assert [counted(number, "structure") for number in (0, 1, 2, 1200)] == [
        "0 structures",
        "1 structure",
        "2 structures",
        "1,200 structures",
    ]


def test_nouns_with_a_plural_of_their_own():
    assert [counted(number, "process", "processes") for number in (1, 2)] == ["1 process", "2 processes"]
