"""Recognition of class ids that are counted from another number than those of the list of classes."""


def shift_of(used: set[int], listed: set[int]) -> int:
    """Return 1 or -1 if the used ids are exactly the listed ones plus this number; else 0.

    Args:
        used: The ids of all annotations.
        listed: The ids of all classes.
    """
    return next((shift for shift in (-1, 1) if listed and used == {number + shift for number in listed}), 0)


def words_of(shift: int) -> tuple[str, str]:
    """Return how shifted ids compare with those of the list, and the beginning of the advice that corrects them.

    Args:
        shift: The result of :func:`shift_of`, not 0.
    """
    return ("less", "add 1 to") if shift < 0 else ("more", "subtract 1 from")
