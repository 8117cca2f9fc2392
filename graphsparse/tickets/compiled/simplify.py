"""A program made smaller: norms folded into weights, sums into sums, dead and constant columns cut away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from graphsparse.tickets.compiled.program import Call, Held, Join, Map, Mix, Program, Scale, Step, Term


def simplify(program: Program) -> Program:
    """The same outputs, up to rounding, from less work; its notes say what was done."""
    before = None
    while before is not program.steps:
        before = program.steps
        for fold in (_scales_into_mixes, _mixes_into_mixes):
            program = fold(program)
    return _cut(program)


def _scales_into_mixes(program: Program) -> Program:
    """A scale behind or before a mix becomes part of its weights."""
    uses, made = program.uses(), {step.out: step for step in program.steps}
    for step in program.steps:
        if isinstance(step, Scale) and step.columns is None:
            behind = made.get(step.source)
            if isinstance(behind, Mix) and uses[behind.out] == 1 and all(t.weight is not None for t in behind.terms):
                whole = replace(_scaled(behind, step.factor, step.shift), out=step.out)
                kept = [whole if other is step else other for other in program.steps if other is not behind]
                return program.with_steps(tuple(kept))
        if isinstance(step, Mix):
            terms = tuple(_after_scale(term, made.get(term.source)) for term in step.terms)
            if any(new is not old for new, old in zip(terms, step.terms, strict=True)):
                steps = tuple(replace(step, terms=terms) if other is step else other for other in program.steps)
                return _used(program.with_steps(steps))
    return program


def _scaled(mix: Mix, factor: Tensor, shift: Tensor) -> Mix:
    terms = []
    for term in mix.terms:
        assert term.weight is not None
        inner = None if term.inner is None else term.inner * factor
        terms.append(replace(term, weight=term.weight * factor.unsqueeze(1), inner=inner))
    return Mix(mix.out, tuple(terms), shift if mix.bias is None else mix.bias * factor + shift)


def _after_scale(term: Term, before: Step | None) -> Term:
    if not isinstance(before, Scale) or term.weight is None:
        return term
    return replace(
        term,
        source=before.source,
        weight=term.weight * before.factor,
        inner=_plus(term.inner, term.weight @ before.shift),
    )


def _plus(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    return other if one is None else one if other is None else one + other


def _used(program: Program) -> Program:
    """Without steps that nothing uses."""
    needed, kept = {program.output}, []
    for step in reversed(program.steps):
        if step.out in needed:
            kept.append(step)
            needed.update(step.sources)
    return program.with_steps(tuple(reversed(kept)))


def _mixes_into_mixes(program: Program) -> Program:
    """A mix that only one other uses is written out in it, where that is a sum of the same products."""
    uses, made = program.uses(), {step.out: step for step in program.steps}
    for step in program.steps:
        for term in step.terms if isinstance(step, Mix) else ():
            inside = made.get(term.source)
            if not isinstance(inside, Mix) or uses[inside.out] != 1 or term.graph is not None or term.inner is not None:
                continue
            written = _written_out(term, inside)
            if written is None:
                continue
            assert isinstance(step, Mix)
            terms, bias = written
            others = [other for other in step.terms if other is not term]
            whole = Mix(step.out, (*terms, *others), _plus(step.bias, bias))
            kept = [whole if other is step else other for other in program.steps if other is not inside]
            return program.with_steps(tuple(kept))
    return program


def _written_out(term: Term, inside: Mix) -> tuple[tuple[Term, ...], Tensor | None] | None:
    if term.weight is None:
        return (inside.terms, inside.bias) if term.columns is None else None
    if any(own.weight is not None or own.inner is not None or own.columns is not None for own in inside.terms):
        return None  # two products one after the other may be narrower than their product
    bias = None if inside.bias is None else term.weight @ inside.bias
    return tuple(replace(own, weight=term.weight) for own in inside.terms), bias


@dataclass
class _Columns:
    """What is known of the columns of a value.

    Attributes:
        fixed: which of them have one and the same value in every row, whatever the features.
        value: that value.
        live: which of them are computed.
    """

    fixed: Tensor
    value: Tensor
    live: Tensor


def _cut(program: Program) -> Program:
    """Without columns that are constant or that nothing hangs on: a dead hidden unit is both or either."""
    known = _constants(program)
    _mark_live(program, known)
    steps = tuple(_cut_step(step, known) for step in program.steps)
    widths = {number: int(own.live.sum()) for number, own in known.items()}
    inputs = known.get(0)
    live = None if inputs is None or bool(inputs.live.all()) else inputs.live.nonzero().view(-1)
    small = replace(program, steps=steps, widths=widths, live=live)
    return replace(small, notes=(*program.notes, *_said(program, known)))


def _said(program: Program, known: Mapping[int, _Columns]) -> list[str]:
    said = []
    inputs = known.get(0)
    if inputs is not None and not bool(inputs.live.all()):
        total = len(inputs.live)
        said.append(f"{total - int(inputs.live.sum())} of {total} features lead nowhere and are not read")
    hidden = [own for step in program.steps if isinstance(step, Mix) and (own := known.get(step.out)) is not None]
    total, live = sum(len(own.live) for own in hidden), sum(int(own.live.sum()) for own in hidden)
    if live < total:
        said.append(f"{total - live} of {total} units are dead or constant and were cut away")
    return said


def _constants(program: Program) -> dict[int, _Columns]:
    widths = program.widths
    known: dict[int, _Columns] = {}

    def start(number: int, fixed: Tensor | None = None, value: Tensor | None = None) -> None:
        if number not in widths:
            return
        none = torch.zeros(widths[number], dtype=torch.bool)
        fixed = none if fixed is None else fixed
        known[number] = _Columns(fixed, torch.zeros(widths[number]) if value is None else value, none.clone())

    start(0)
    for step in program.steps:
        if isinstance(step, Mix) and all(source in known for source in step.sources):
            start(step.out, *_constant_mix(step, known, widths[step.out]))
        elif isinstance(step, (Map, Scale)) and step.source in known:
            own = known[step.source]
            value = own.value
            value = step.function(value) if isinstance(step, Map) else value * step.factor + step.shift
            start(step.out, own.fixed, torch.where(own.fixed, value, torch.zeros_like(value)))
        elif isinstance(step, Join) and all(part in known for part in step.parts):
            parts = [known[part] for part in step.parts]
            start(step.out, torch.cat([p.fixed for p in parts]), torch.cat([p.value for p in parts]))
        else:
            start(step.out)
    return known


def _constant_mix(step: Mix, known: Mapping[int, _Columns], width: int) -> tuple[Tensor, Tensor]:
    fixed, value = torch.ones(width, dtype=torch.bool), torch.zeros(width)
    for term in step.terms:
        own = known[term.source]
        inner = _fixed_part(term, own)
        moving = ~own.fixed if term.weight is None else (term.weight[:, ~own.fixed] != 0).any(dim=1)
        if term.graph is not None:
            moving = moving | (inner != 0)  # the sums of rows differ from node to node
        else:
            value = value + inner
        fixed &= ~moving
    if step.bias is not None:
        value = value + step.bias
    return fixed, torch.where(fixed, value, torch.zeros_like(value))


def _fixed_part(term: Term, own: _Columns) -> Tensor:
    """What constant columns, and the term's own constants, add to each output before edges are summed over."""
    value = own.value * own.fixed
    part = value if term.weight is None else term.weight[:, own.fixed] @ value[own.fixed].to(term.weight.dtype)
    return part if term.inner is None else part + term.inner


def _mark_live(program: Program, known: Mapping[int, _Columns]) -> None:
    if program.output in known:
        known[program.output].live[:] = True
    for step in reversed(program.steps):
        out = known.get(step.out)
        if isinstance(step, Mix) and out is not None:
            for term in step.terms:
                own = known[term.source]
                if term.weight is None:
                    own.live |= out.live
                else:
                    own.live |= (term.weight[out.live] != 0).any(dim=0) & ~own.fixed
        elif isinstance(step, (Map, Scale)) and out is not None:
            known[step.source].live |= out.live
        elif isinstance(step, Held) and out is not None:
            pass
        elif isinstance(step, Join) and out is not None:
            start = 0
            for part in step.parts:
                own = known[part]
                own.live |= out.live[start : start + len(own.live)]
                start += len(own.live)
        else:  # what is run as it is computes all that it has
            for number in (step.out, *step.sources):
                if number in known:
                    known[number].live[:] = True


def _cut_step(step: Step, known: Mapping[int, _Columns]) -> Step:
    out = known.get(step.out)
    if out is None or isinstance(step, Call):
        return step
    live = out.live
    if isinstance(step, Held):
        return replace(step, value=step.value[:, live])
    if isinstance(step, Map):
        return replace(step, columns=_taken(known[step.source].live, live))
    if isinstance(step, Scale):
        taken = _taken(known[step.source].live, live)
        return replace(step, factor=step.factor[live], shift=step.shift[live], columns=taken)
    if isinstance(step, Mix):
        return _cut_mix(step, known, live)
    assert isinstance(step, Join)
    columns, start = [], 0
    for part in step.parts:
        own = known[part].live
        columns.append(_taken(own, live[start : start + len(own)]))
        start += len(own)
    return replace(step, columns=tuple(columns))


def _taken(computed: Tensor, wanted: Tensor) -> Tensor | None:
    """Which of the columns that are computed are wanted, by their place among them; None: all."""
    return None if torch.equal(computed, wanted) else wanted[computed].nonzero().view(-1)


def _cut_mix(step: Mix, known: Mapping[int, _Columns], live: Tensor) -> Mix:
    bias = None if step.bias is None else step.bias[live]
    terms, idle = [], []
    for term in step.terms:
        own = known[term.source]
        if term.weight is None:
            inner = None if term.inner is None else term.inner[live]
            terms.append(replace(term, inner=inner, columns=_taken(own.live, live)))
            continue
        inner = _fixed_part(term, own)[live]
        weight = term.weight[live]
        weight[:, own.fixed] = 0  # in what is added now; others may want these columns themselves
        weight = weight[:, own.live]
        if term.graph is None:
            bias = _plus(bias, inner) if bool(inner.any()) else bias
        lasting = term.graph is not None and bool(inner.any())
        if lasting or bool(weight.any()):
            terms.append(replace(term, weight=weight, inner=inner if lasting else None))
        else:
            idle.append(replace(term, weight=weight, inner=None))
    return Mix(step.out, tuple(terms or idle[:1]), bias)
