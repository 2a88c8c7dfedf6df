"""Checks of attaching an adapter: the detector's own loss, state, copies, removal, steps and memory."""

import copy
import gc
import io
import pickle
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..core.errors import UsageError
from ..detectors.attach import attached, detectors_inside, find_detector, unpatch
from .check_runner import Fault, Finding, NotRun
from .detector_subject import COUNTS, DetectorSubject, not_finite, unlike
from .tensor_differences import copied_state, state_difference

BATCHES: dict[str, dict[str, Any]] = {
    "images with and without objects": {"counts": COUNTS},
    "no object at all": {"counts": (0, 0)},
    "one image": {"counts": (3,)},
    "objects at the borders": {"counts": (4, 1), "border": True},
}
_OWN_LOSS = "let defaults name the parts that compute the detector's own loss, and install pass on its inputs unchanged"
_FIND = "put the class's module and name into detectors, and the adapter into the entry-point group lit_dense.detectors"


def found(subject: DetectorSubject) -> Iterator[Finding]:
    """The detector is found inside a model by the names of its base classes; two detectors raise an error."""
    model = subject.model()
    inside = detectors_inside(nn.ModuleDict({"inner": model}))
    kinds = [adapter for _, adapter in inside.values()]
    if kinds != [subject.adapter]:
        seen = ", ".join(k.__name__ for k in kinds) or "none"
        yield Fault(f"one detector inside the model, with the adapter {subject.adapter.__name__}", seen, _FIND)
        return
    detector = find_detector(model).detector
    detector.__class__ = type("Own", (type(detector),), {})
    if [adapter for _, adapter in detectors_inside(model).values()] != [subject.adapter]:
        yield Fault("a subclass of the detector to be found", "it is not", "let accepts check the base classes, too")
    try:
        find_detector(nn.ModuleDict({"first": subject.model(), "second": subject.model()}))
    except UsageError as error:
        if "first" not in str(error) or "second" not in str(error):
            yield Fault("an error that names both of two detectors", str(error), "name the paths of both")
    else:
        yield Fault("a UsageError for a model with two detectors", "no error", _FIND)


def steps_repeat(subject: DetectorSubject) -> Iterator[Finding]:
    """Equal models make equal steps; the other checks rely on this."""
    first, second = (subject.run(subject.model(), subject.batch()) for _ in range(2))
    if seen := unlike(second, first, terms=1e-6, gradients=1e-6):
        yield Fault(
            "equal steps of equal models",
            seen,
            "keep no state in make and step, and use torch's generator for random numbers",
        )


def own_loss(subject: DetectorSubject) -> Iterator[Finding]:
    """With its defaults the adapter gives the detector's own loss terms and gradients, also for a single stage."""
    for case, how in BATCHES.items():
        batch = subject.batch(**how)
        stock = subject.run(subject.model(), batch)
        if seen := unlike(subject.run(subject.attached(), batch), stock):
            yield Fault(f"the detector's own loss terms and gradients ({case})", seen, _OWN_LOSS)
    stages = subject.stages
    for stage in stages if len(stages) > 1 else ():
        stock = subject.run(subject.model(), subject.batch())
        if seen := unlike(subject.run(subject.attached(stage), subject.batch()), stock):
            yield Fault(f"the detector's own loss if only the stage {stage!r} is attached", seen, _OWN_LOSS)


def own_detections(subject: DetectorSubject) -> Iterator[Finding]:
    """With its defaults the detections are the detector's own."""
    expected, detections = subject.detections(subject.model()), subject.detections(subject.attached())
    for image, (own, stock) in enumerate(zip(detections, expected, strict=True)):
        if seen := state_difference(own, stock, 1e-5):
            yield Fault(
                f"the detector's own detections in image {image}", seen, "replace inference only where it is necessary"
            )


def random_stream(subject: DetectorSubject) -> Iterator[Finding]:
    """After a step torch's generator has the same state as after the detector's own step."""
    stock, own = (subject.run(m, subject.batch()).random_state for m in (subject.model(), subject.attached()))
    if not torch.equal(stock, own):
        yield Fault(
            "the state of torch's generator that it has after the detector's own step",
            "another state",
            "call the random sampling once, in the same place as the detector",
        )


def state_dict(subject: DetectorSubject) -> Iterator[Finding]:
    """The model's state dict keeps its keys and numbers, and loads in both directions."""
    stock, own = subject.model(), subject.attached()
    if seen := state_difference(own.state_dict(), stock.state_dict()):
        yield Fault("the unchanged state dict of the model", seen, "register no parameters, buffers or modules")
        return
    own.load_state_dict(stock.state_dict(), strict=True)
    stock.load_state_dict(own.state_dict(), strict=True)


def copies(subject: DetectorSubject) -> Iterator[Finding]:
    """``copy.deepcopy``, ``pickle`` and ``torch.save`` give models with equal losses and independent criteria."""
    ways: dict[str, Callable[[nn.Module], nn.Module]] = {
        "copy.deepcopy": copy.deepcopy,
        "pickle": lambda model: pickle.loads(pickle.dumps(model)),
        "torch.save": _through_file,
    }
    for how, duplicate in ways.items():
        try:
            duplicate(subject.model())
        except Exception as error:  # a model's own attributes may raise any error
            yield NotRun(f"{how} of the detector itself fails: {error}")
            continue
        model = subject.attached()
        expected = subject.run(subject.attached(), subject.batch())
        twin = duplicate(model)
        if seen := unlike(subject.run(twin, subject.batch()), expected, terms=0, gradients=0):
            yield Fault(f"equal losses after {how}", seen, "let install use override and hook, which copies keep")
        if (adapter := attached(twin)) is None:
            yield Fault(
                f"a copy by {how} with an attached adapter", "the detector's own loss", "keep the adapter's attributes"
            )
            continue
        steps = {stage: criterion.step for stage, criterion in find_detector(model).criteria.items()}
        if any(steps.values()) or not all(criterion.step for criterion in adapter.criteria.values()):
            yield Fault(
                f"independent criteria in a copy by {how}",
                f"steps {steps} of the original after a step of the copy",
                "access the detector by self.detector, and criteria by self.criteria",
            )
        unpatch(twin)
        if attached(model) is None:
            yield Fault(
                f"the original attached after unpatch of its copy by {how}", "it is not", "keep no global state"
            )


def _through_file(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded: nn.Module = torch.load(file, weights_only=False)
    return loaded


def removal(subject: DetectorSubject) -> Iterator[Finding]:
    """``unpatch`` restores attributes, hooks and losses, also of copies and after an error in a step."""
    batch = subject.batch()
    stock = subject.model()
    subject.run(stock, batch)  # some modules store shapes in the first step
    before, expected = trace(stock), subject.run(stock, batch)
    ways: dict[str, Callable[[nn.Module], nn.Module]] = {
        "a step": lambda model: model,
        "a step, in a copy": copy.deepcopy,
        "an error within a step": lambda model: _with_error(subject, model),
    }
    for when, prepare in ways.items():
        model = subject.attached()
        subject.run(model, batch)
        model = prepare(model)
        unpatch(model)
        unpatch(model)
        after = trace(model)
        if left := [f"{k} ({after.get(k, 'gone')})" for k in sorted(_changed(after, before))]:
            yield Fault(f"the original model after {when} and unpatch", f"changed: {', '.join(left[:5])}", _UNDO)
        if seen := unlike(subject.run(model, batch), expected, terms=0, gradients=0):
            yield Fault(f"the detector's own loss after {when} and unpatch", seen, _UNDO)


_UNDO = "replace methods with override and add hooks with hook, which remove reverts, or revert changes in remove"


def _with_error(subject: DetectorSubject, model: nn.Module) -> nn.Module:
    """Run a step in which each criterion raises an error, and return the model."""

    def fail(module: nn.Module, args: object) -> None:
        raise RuntimeError("an error within a step")

    for criterion in find_detector(model).criteria.values():
        handle = criterion.register_forward_pre_hook(fail)
        try:
            subject.run(model, subject.batch())
        except RuntimeError:
            pass
        finally:
            handle.remove()
    return model


def trace(model: nn.Module) -> dict[str, str]:
    """List everything that attaching may change: attributes of every module, and the lengths of collections."""
    return {
        f"{path or 'the model'}.{name}": f"{type(value).__name__} of {len(value)}"
        if isinstance(value, Mapping | list | tuple)
        else type(value).__name__
        for path, module in model.named_modules()
        for name, value in vars(module).items()
    }


def _changed(some: dict[str, str], others: dict[str, str]) -> set[str]:
    return {name for name in some.keys() | others.keys() if some.get(name) != others.get(name)}


def steps_counted(subject: DetectorSubject) -> Iterator[Finding]:
    """Each stage's criterion counts one step per training step, and none without gradients or in evaluation."""
    model = subject.attached()
    criteria = find_detector(model).criteria
    subject.run(model, subject.batch())
    yield from _expect_steps(criteria, 1, "a training step")
    before = {stage: copied_state(criterion) for stage, criterion in criteria.items()}
    with torch.no_grad():
        subject.step(model, *copy.deepcopy(subject.batch()))
    yield from _expect_steps(criteria, 1, "a training step, and one under torch.no_grad()")
    subject.detections(model)
    yield from _expect_steps(criteria, 1, "a training step and an evaluation")
    for stage, criterion in criteria.items():
        if seen := state_difference(criterion.state_dict(), before[stage]):
            yield Fault("the same state of a criterion after an evaluation", seen, "call terms once per step")


def _expect_steps(criteria: Any, number: int, when: str) -> Iterator[Finding]:
    for stage, criterion in criteria.items():
        if criterion.step != number:
            name = f"stage {stage!r}" if stage else "criterion"
            yield Fault(f"{number} step of the {name} after {when}", f"{criterion.step}", "call terms once per step")


def memory(subject: DetectorSubject) -> Iterator[Finding]:
    """After a step no tensor of the batch is kept, and a model is freed with its last reference."""
    gc.collect()
    gc.disable()  # objects that need the garbage collector stay in memory for a long time in training
    try:
        yield from _kept(subject)
    finally:
        gc.enable()


def _kept(subject: DetectorSubject) -> Iterator[Finding]:
    if any(reference() is not None for reference in _references(subject, subject.model())):
        yield NotRun("the detector itself is freed only by the garbage collector")
        return
    model = subject.attached()
    kept: dict[str, weakref.ref[Tensor]] = {}
    for stage in subject.stages:
        with subject.seen(model, stage) as samples:
            images, targets = subject.batch()
            terms = subject.step(model, images, targets)
            torch.stack([term.float() for term in terms.values()]).sum().backward()
            kept |= {f"images ({stage})": weakref.ref(images[0]), f"boxes ({stage})": weakref.ref(targets[0]["boxes"])}
            kept |= {f"{name} ({stage})": weakref.ref(getattr(samples[0], name)) for name in ("logits", "matched_idxs")}
            samples.clear()
        del images, targets, terms
    if left := [name.removesuffix(" ()") for name, reference in kept.items() if reference() is not None]:
        yield Fault(
            "no tensor of a batch kept after its step", f"kept: {', '.join(left)}", "delete what install has stored"
        )
    references = _references(subject, model)
    del model
    if any(reference() is not None for reference in references):
        yield Fault(
            "a model that is freed with its last reference",
            "a model that is freed only by the garbage collector",
            "keep only weak references to the detector and its modules, by self.detector",
        )


def _references(subject: DetectorSubject, model: nn.Module) -> list[Any]:
    subject.run(model, subject.batch())
    return [weakref.ref(model), weakref.ref(find_detector(model).detector)]


def autocast(subject: DetectorSubject) -> Iterator[Finding]:
    """Under bfloat16 autocast, terms are float32, and terms and gradients are finite."""
    with torch.autocast("cpu", torch.bfloat16):
        try:
            subject.run(subject.model(), subject.batch())
        except RuntimeError as error:
            yield NotRun(f"the detector itself fails under bfloat16 autocast: {str(error).splitlines()[0]}")
            return
        result = subject.run(subject.attached(), subject.batch())
    for name, term in result.terms.items():
        if term.dtype != torch.float32:
            yield Fault(f"a loss term {name} in float32 under autocast", f"{term.dtype}", "return the terms unchanged")
    if seen := not_finite(result):
        yield Fault("finite terms and gradients under bfloat16 autocast", seen, "compute additional terms in float32")
