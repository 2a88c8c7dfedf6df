"""Recognition of class ids that are counted from another number than those of the list of classes."""


def shift_of(used: set[int], listed: set[int]) -> int:
    """Return 1 or -1 if the used ids are exactly the listed ones plus this number; else 0.

    Args:
        used: The ids of all annotations.
        listed: The ids of all classes.
    """
    return next((shift for shift in (-1, 1) if listed and used == {number + shift for number in listed}), 0)
