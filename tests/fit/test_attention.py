"""Attention maps in distillation: a hand-made map, the term, that it is learned, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from graphsparse.fit import Distill, Task, fit
from graphsparse.fit.attention import attention_map, outputs_of


def net(width: int, seed: int) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        body = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.ReLU())
        return nn.Sequential(body, nn.Conv2d(width, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


def task() -> Task:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(24, 1, 6, 6, generator=generator), torch.arange(24) % 2
    return Task((x, y), (x, y), (x, y), batch_size=8)


def distance(student: nn.Module, teacher: nn.Module, x: Tensor, name: str) -> float:
    with torch.no_grad(), outputs_of(student, [name]) as own, outputs_of(teacher, [name]) as other:
        student(x), teacher(x)
    return float((attention_map(own[name]) - attention_map(other[name])).square().sum(1).mean())


def test_a_map_by_hand() -> None:
    features = torch.tensor([[[[1.0, 0.0]], [[1.0, 2.0]]]])  # mean of squares: 1, 2
    assert attention_map(features) == pytest.approx(torch.tensor([[1.0, 2.0]]) / 5**0.5)
    assert attention_map(7 * features) == pytest.approx(attention_map(features))


def test_a_student_of_fewer_channels_looks_where_its_teacher_does() -> None:
    teacher, examples = net(8, 1), task()
    x = examples.parts["train"][0]
    ends = {}
    for weight in (0.0, 50.0):
        student = net(3, 2)
        before = distance(student, teacher, x, "0")
        distill = Distill(None, 0.0, teacher=teacher, attention={"0": weight, "1": 0.0})
        fit(student, examples, epochs=15, lr=0.01, weight_decay=0.0, distill=distill)
        ends[weight] = distance(student, teacher, x, "0")
        assert not any(module._forward_hooks for module in (*student.modules(), *teacher.modules()))
    assert ends[50.0] < min(0.5 * before, 0.7 * ends[0.0])


def test_the_first_loss_is_the_sum_of_its_parts() -> None:
    teacher, student, examples = net(8, 1), net(3, 2), task()
    x, y = examples.parts["train"]
    whole = Task((x, y), (x, y), (x, y), batch_size=24)
    plain = fit(net(3, 2), whole, epochs=1).history[0]["loss"]
    taught = fit(net(3, 2), whole, epochs=1, distill=Distill(None, 0.0, teacher=teacher, attention={"0": 3.0}))
    assert taught.history[0]["loss"] - plain == pytest.approx(3 * distance(student, teacher, x, "0"), rel=1e-4)


@pytest.mark.parametrize(
    ("attention", "message"),
    [
        ({"4": 1.0}, r"needs channels and places, \[N, C, \.\.\.\], got \[8, 2\]"),
        ({"9": 1.0}, "the teacher has no module '9'"),
        ({"": 1.0}, "has no module ''"),
    ],
)
def test_what_has_no_map_is_told(attention: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit(net(3, 2), task(), epochs=1, distill=Distill(None, teacher=net(3, 1), attention=attention))


def test_what_is_out_of_range_is_told() -> None:
    options: Any
    for options, message in (
        ({"teacher_logits": torch.zeros(4, 2), "attention": {"0": 1.0}}, "give teacher="),
        ({"teacher_logits": None, "teacher": net(2, 0), "attention": {"0": -1.0}}, "at least 0, got -1.0"),
    ):
        with pytest.raises(ValueError, match=message):
            Distill(**options)
    wide = nn.Sequential(nn.Upsample(scale_factor=2), *net(3, 1))
    with pytest.raises(ValueError, match="differ in the places of '0'"):
        fit(net(3, 2), task(), epochs=1, distill=Distill(None, teacher=wide, attention={"0": 1.0}))


def test_a_checkpoint_knows_the_attention(tmp_path: Any) -> None:
    from graphsparse.errors import DataError

    def run(weight: float) -> None:
        distill = Distill(None, teacher=net(4, 1), attention={"0": weight})
        fit(net(3, 2), task(), epochs=1, checkpoint=tmp_path / "run", distill=distill)

    run(1.0)
    run(1.0)
    with pytest.raises(DataError):
        run(2.0)
