"""One body, and one head for each dataset."""

from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from mtlrank.batch import TaskBatch
from mtlrank.errors import ConfigError
from mtlrank.model.body import MTLBody, Part
from mtlrank.model.head import MTLHead
from mtlrank.own_parts import check_registered


class MultiTaskModel(nn.Module):
    """A shared body and heads by dataset name. All tasks of a step go through the body together, once.

    A name in the place of a head stands for the head of that name, which then learns from both datasets.
    """

    def __init__(self, body: MTLBody, heads: Mapping[str, MTLHead | str]) -> None:
        super().__init__()
        taken = sorted(name for name in heads if hasattr(nn.ModuleDict(), name))
        if taken:
            raise ConfigError(
                f"A dataset cannot be called {taken[0]!r}, as torch uses that name. Give it another `name`."
            )
        self.body = body
        self.shared = {name: head for name, head in heads.items() if isinstance(head, str)}  # name: the head's own name
        own = {name: head for name, head in heads.items() if not isinstance(head, str)}
        for name, head in own.items():
            check_registered(f"The head {name!r}", head)
        self.heads = nn.ModuleDict({name: own[self.shared.get(name, name)] for name in heads})
        for weight in self.idle(self.heads) if body.family else []:
            weight.requires_grad_(False)  # layers that no head reads: they would never get a gradient
        self.train()  # loaded encoders are in evaluation mode, and Lightning keeps the mode of a module

    def head(self, name: str) -> MTLHead:
        """The head of a dataset."""
        head = self.heads[name]
        assert isinstance(head, MTLHead)
        return head

    def head_kinds(self) -> dict[str, str]:
        """The description of each head; heads with equal ones can take each other's weights."""
        return {name: self.head(name).describe() for name in self.heads}

    def idle(self, names: Iterable[str]) -> list[nn.Parameter]:
        """The weights that a batch of these tasks does not use: other heads, and layers that only they read."""
        present = set(names)
        depth = max((max(self.head(name).layers) for name in present), default=0)
        used = {id(self.head(name)) for name in present}
        absent = {id(head): head for head in self.heads.values() if id(head) not in used}
        return [*(p for head in absent.values() for p in head.parameters()), *self.body.deeper_than(depth)]

    def forward(self, batches: Mapping[str, TaskBatch]) -> dict[str, Tensor]:
        """Logits of each task, (items, output_dim), in the order of `batches`."""
        # Stable: equals keep config order.
        deepest_first = sorted(batches, key=lambda name: -max(self.head(name).layers))
        ordered = [batches[name] for name in deepest_first]
        states = self.body.encode(
            torch.cat([batch.input_ids for batch in ordered]),
            torch.cat([batch.token_type_ids for batch in ordered]),
            _concatenate(ordered, "cu_seqlens"),
            [self._part(name, batch) for name, batch in zip(deepest_first, ordered, strict=True)],
            max(batch.max_seqlen for batch in ordered),
            _concatenate(ordered, "second_starts"),
        )
        read = dict(zip(deepest_first, states, strict=True))
        return {name: self.head(name)(read[name], batch) for name, batch in batches.items()}

    def _part(self, name: str, batch: TaskBatch) -> Part:
        head = self.head(name)
        return Part(head.layers, len(batch.cu_seqlens) - 1, len(batch.input_ids), head.pooler.only)


def _concatenate(batches: list[TaskBatch], field: Literal["cu_seqlens", "second_starts"]) -> Tensor:
    """Places in several packed batches, concatenated. In `cu_seqlens`, one batch's end is the start of the next."""
    parts, shift = list[Tensor](), 0
    for batch in batches:
        places: Tensor = getattr(batch, field)
        parts.append((places[1:] if field == "cu_seqlens" and parts else places) + shift)
        shift += len(batch.input_ids)
    return torch.cat(parts)
