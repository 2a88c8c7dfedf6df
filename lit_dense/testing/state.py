"""Checks of a part's state: buffers, checkpoints, copies and arguments."""

import copy
import io
import pickle
from collections.abc import Callable, Iterator

import torch

from ..criterion import Criterion
from .check_runner import Fault, Finding
from .subject import Subject
from .tensor_differences import copied_state, difference, state_difference


def forward_keeps_state(subject: Subject) -> Iterator[Finding]:
    """A forward pass changes no buffer; staged values are committed later, by the criterion."""
    part = subject.part_of(subject.trained())
    before = copied_state(part)
    subject.values_and_gradients(part, subject.batch())
    if seen := state_difference(part.state_dict(), before):
        yield Fault(
            "the same state_dict after forward, before the criterion commits",
            seen,
            "call self.stage(name=value) with the next value of a buffer instead of assigning it",
        )


def evaluation_keeps_state(subject: Subject) -> Iterator[Finding]:
    """Under ``no_grad`` a criterion is repeatable, keeps its state, and does not affect the next step."""
    criterion, undisturbed = subject.trained(), subject.trained()
    before = copied_state(criterion)
    with torch.no_grad():
        first, second = subject.step(criterion, subject.batch()), subject.step(criterion, subject.batch())
    if seen := difference(second, first):
        yield Fault("the same loss when a batch is evaluated twice", seen, _STAGE)
    if seen := state_difference(criterion.state_dict(), before):
        yield Fault("the same state_dict after an evaluation", seen, _STAGE)
    step, expected = subject.step(criterion, subject.batch(seed=1)), subject.step(undisturbed, subject.batch(seed=1))
    seen = difference(step, expected) or state_difference(criterion.state_dict(), undisturbed.state_dict())
    if seen:
        yield Fault("the same training step with and without an evaluation before it", seen, _STAGE)


_STAGE = "keep all changing values in buffers, set by self.stage; use a generator with a fixed seed for random numbers"


def checkpoint(subject: Subject) -> Iterator[Finding]:
    """State saved after two steps and loaded into a part built from ``spec`` gives the same values."""
    trained = subject.trained()
    part = subject.part_of(trained)
    file = io.BytesIO()
    torch.save({"spec": part.spec, "state": trained.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    restored = subject.criterion_with(subject.build(saved["spec"]))
    restored.prepare(subject.num_classes)  # without class counts: a checkpoint may be tested without training data
    restored.load_state_dict(saved["state"])
    restored.check_ready()
    for what, actual, expected in (
        ("values", *(subject.values(subject.part_of(c), subject.batch()) for c in (restored, trained))),
        ("loss in the next step", *(subject.step(c, subject.batch()) for c in (restored, trained))),
    ):
        if seen := difference(actual, expected):
            yield Fault(
                f"the same {what} from a checkpoint of two steps, loaded without class counts",
                seen,
                "register changing values, and values computed from class counts, as buffers; create them in prepare",
            )


def copies(subject: Subject) -> Iterator[Finding]:
    """``copy.deepcopy`` and ``pickle`` give a part with the same values and arguments, and an independent state."""
    ways: dict[str, Callable[[Criterion], Criterion]] = {
        "copy.deepcopy": copy.deepcopy,
        "pickle": lambda criterion: pickle.loads(pickle.dumps(criterion)),
    }
    for how, duplicate in ways.items():
        criterion = subject.trained()
        twin = duplicate(criterion)
        original, part = subject.part_of(criterion), subject.part_of(twin)
        if part.spec != original.spec:
            yield Fault(f"the arguments {original.spec} after {how}", f"{part.spec}", "define no __reduce__")
        values, expected = (subject.values(p, subject.batch()) for p in (part, original))
        if seen := difference(values, expected):
            yield Fault(f"the same values after {how}", seen, "do not depend on the identity of the object")
        before = copied_state(original)
        subject.step(twin, subject.batch())
        if seen := state_difference(original.state_dict(), before):
            yield Fault(
                f"the original's state unchanged after training a copy ({how})",
                seen,
                "keep state in buffers of the object, not of its class or module",
            )


def spec(subject: Subject) -> Iterator[Finding]:
    """``spec`` is plain data, and an equal part can be built from it."""
    described = subject.part_of(subject.criterion()).spec
    rebuilt = subject.build(described)
    if type(rebuilt) is not type(subject.part):
        yield Fault(f"an object of {type(subject.part)}", f"{type(rebuilt)}", "define the class at the top of a module")
    if rebuilt.spec != described:
        yield Fault(
            f"the spec {described}",
            f"{rebuilt.spec} after building a part from it",
            "use only numbers, strings, lists, dicts or parts as arguments",
        )
    file = io.BytesIO()
    torch.save(described, file)
    file.seek(0)
    try:
        torch.load(file, weights_only=True)
    except pickle.UnpicklingError as error:
        yield Fault(
            "a spec of plain data, as required in a checkpoint",
            f"{described}, which torch.load refuses: {str(error).splitlines()[0]}",
            "use only numbers, strings, lists, dicts or parts as arguments",
        )
    with torch.no_grad():
        for new, old in zip(rebuilt.parameters(), subject.part.parameters(), strict=True):
            new.copy_(old)  # parameters are initialised at random
    criterion = subject.criterion_with(rebuilt)
    criterion.receive_class_counts(subject.counts)
    criterion.prepare(subject.num_classes)
    values = subject.values(subject.part_of(criterion), subject.batch())
    if seen := difference(values, subject.values(subject.part_of(subject.criterion()), subject.batch())):
        yield Fault(
            "the same values from a part built from spec",
            seen,
            "set everything from the arguments of __init__, and nothing afterwards",
        )
