"""A searched layer of the supernet: its candidates, computed together where they are alike."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from itertools import chain, pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fbnet.network import build, own_name, shapes, sliced
from fbnet.search.fused import DepthwiseProject, NormSum, expanded, side_by_side
from fbnet.space import OPERATORS, Cell


class Joint(NamedTuple):
    """The weights of n joined candidates as their block uses them, with m expanded channels each, of some kernel sizes.

    `expand` [Σ m, c_in] and its norm's `expand_gamma`, `expand_beta` [Σ m]; of each kernel size `kernels` [Σ m, 1, k, l],
    `kernel_gammas` and `kernel_betas` [Σ m]; of each candidate `project` [c_out, m]; of the last norm `gamma`, `beta` [n c_out].
    Where candidates share weights, the largest m stands for the sum, and `project` has the channels that each adds to the one
    before it.
    """

    expand: Tensor
    expand_gamma: Tensor
    expand_beta: Tensor
    kernel_gammas: list[Tensor]
    kernel_betas: list[Tensor]
    gamma: Tensor
    beta: Tensor
    kernels: list[Tensor]
    project: list[Tensor]

    def each(self, function: Callable) -> "Joint":
        """The same with function(tensor, whether it goes into a product with images) in place of each tensor."""
        found = []
        for name, field in zip(self._fields, self, strict=True):
            in_product = name in ("kernels", "project")
            found.append([function(one, in_product) for one in field] if isinstance(field, list) else function(field, in_product))
        return Joint(*found)


class MixedOperation(nn.Module):
    """The candidates of a layer, blended: x [N, c_in, H, W], mask [candidates] → Σ mask · op(x) [N, c_out, H', W'].

    `ops` holds a plain module for each candidate; with `shared`, one for each family of operators, with the largest kernel and
    expansion among them, of which each candidate is a slice (weight entanglement, Chen et al. 2021, AutoFormer). Inverted
    residuals share their input and their form: they run as one block, their channels side by side, or, where they share those,
    once. A batch norm has its statistics per channel, so this changes nothing but the time (to rounding); in training mode the
    norms take the batch's statistics and keep none. Candidates of fewer channels are slices as well, and only computed alone, by
    `path`; a `skip` has weights of its own for each c_in and c_out. `made_for` says for whose kernels the steps are shaped: those
    of a "cpu" or of "cuda".
    """

    def __init__(self, cells: tuple[Cell, ...], made_for: str = "cpu", shared: bool = False):
        super().__init__()
        self.cells, self.made_for, self.shared = cells, made_for, shared
        operators = [OPERATORS[cell.op] for cell in cells]
        self.kernels = [operator.kernel for operator in operators]
        several = len({(cell.c_in, cell.c_out) for cell in cells}) > 1
        self.owners = [
            # the widest pair may be an identity, of which no other is a slice
            own_name(cell) if several and cell.op == "skip" else operator.family if shared else operator.name
            for cell, operator in zip(cells, operators, strict=True)
        ]
        self.ops = nn.ModuleDict({owner: build(self._largest(owner)) for owner in dict.fromkeys(self.owners)})
        self.is_whole = [self._largest(owner) == cell for owner, cell in zip(self.owners, cells, strict=True)]
        alike = [
            cell.norm == "bn" and operator.kind == "irf" and operator.depthwise == 1 and not operator.se
            for cell, operator in zip(cells, operators, strict=True)
        ]
        numbers = range(len(cells))
        self.apart = [number for number in numbers if not alike[number] and not cells[number].is_identity]
        by_kernel = sorted(filter(alike.__getitem__, numbers), key=lambda number: (self.kernels[number], cells[number].expansion))
        blocks: dict[str, list[int]] = {}
        for number in by_kernel:
            blocks.setdefault(self.owners[number] if shared else "all", []).append(number)
        self.joined = list(blocks.values())  # the candidates that run as one block
        through = [number for number in numbers if cells[number].is_identity or (alike[number] and cells[number].keeps_shape)]
        for name, chosen in (("joined", [*chain(*self.joined)]), ("through", through)):
            self.register_buffer(f"{name}_numbers", torch.tensor(chosen, dtype=torch.int64), persistent=False)

    def _largest(self, owner: str) -> Cell:
        """The cell that has all of an owner's weights."""
        own = [cell for cell, name in zip(self.cells, self.owners, strict=True) if name == owner]
        widest = {key: max(getattr(cell, key) for cell in own) for key in ("c_in", "c_out", "expansion")}
        return replace(max(own, key=lambda cell: (OPERATORS[cell.op].kernel, cell.expansion)), **widest)

    def forward(self, x: Tensor, mask: Tensor, joints: Sequence[Joint] | None = None) -> Tensor:
        """The sum over all candidates; `joints`, the weights of the joined ones, where they have been arranged before."""
        blends = [mask[number] * self.candidate(number)(x) for number in self.apart]
        joints = [self.arranged(numbers) for numbers in self.joined] if joints is None else joints
        masks = mask.index_select(0, self.joined_numbers).split([len(numbers) for numbers in self.joined])
        for numbers, joint, own in zip(self.joined, joints, masks, strict=True):
            blends += self._blocks(x, numbers, joint, own)
        if len(self.through_numbers):
            blends.append(mask.index_select(0, self.through_numbers).sum() * x)
        return sum(blends[1:], start=blends[0])

    def path(self, x: Tensor, number: int, mask: Tensor | None = None) -> Tensor:
        """One candidate alone: op(x), or mask · op(x)."""
        is_joined = any(number in numbers for numbers in self.joined)
        if is_joined and (self.shared or self.made_for == "cpu"):  # its plain depthwise gradients are slow there
            [y] = self._blocks(x, [number], self.arranged([number]), None)
            y = x + y if self.cells[number].keeps_shape else y
        else:
            y = self.candidate(number)(x)
        return y if mask is None else mask * y

    def candidate(self, number: int) -> Callable[[Tensor], Tensor]:
        """A candidate as a function of its input: its plain module, or one with its share of the family's weights."""
        owner, key = self.ops[self.owners[number]], self.cells[number].build_key
        if self.is_whole[number]:
            return owner
        whole = dict(owner.named_parameters()) | dict(owner.named_buffers())
        own = {name: sliced(whole[name], shape) for name, shape in shapes(key).items()}
        return lambda x: functional_call(_module(key), own, (x,))

    def arranged(self, numbers: Sequence[int], of: Callable[[nn.Parameter], Tensor] = lambda parameter: parameter) -> Joint:
        """The weights of these joined candidates, ordered by kernel size; `of` hands out a parameter's values, or a stand-in."""
        expands, projects, norms = [], [], []
        sizes: dict[int, list[tuple[Tensor, ...]]] = {}
        same = dict.fromkeys(self.kernels[number] for number in numbers) if self.shared else numbers
        for key in same:  # each kernel size of a shared block, or each candidate
            own = [number for number in numbers if key == (self.kernels[number] if self.shared else number)]
            widths = [self.cells[number].c_in * self.cells[number].expansion for number in own]
            cell, block, width = self.cells[own[-1]], self.ops[self.owners[own[-1]]], widths[-1]
            operator = OPERATORS[cell.op]
            conv, norm, _ = block.expand
            rows = [sliced(of(conv.weight), [width, cell.c_in // operator.groups])]
            rows[0] = _dense(rows[0], operator.groups)
            rows += [sliced(of(row), [width]) for row in (norm.weight, norm.bias)]
            expands.append([_shuffled(row, operator.groups) for row in rows])
            [[conv, norm, _]] = block.depthwise
            kernels = sliced(of(conv.weight), [width, 1, operator.kernel, operator.kernel])
            rows = [sliced(of(row), [width]) for row in (norm.weight, norm.bias)]
            sizes.setdefault(operator.kernel, []).append((self._reachable(kernels), *rows))
            conv, norm = block.project
            project = _dense(sliced(of(conv.weight), [cell.c_out, width // operator.groups]), operator.groups)
            added = [more - fewer for fewer, more in pairwise([0, *widths])]
            projects += [project] if len(own) == 1 else project.split(added, dim=1)
            norms += [tuple(sliced(of(row), [cell.c_out]) for row in (norm.weight, norm.bias))] * len(own)
        if self.shared:
            expands = [max(expands, key=lambda rows: len(rows[0]))]
        depthwise = [[side_by_side(parts) for parts in zip(*rows, strict=True)] for rows in sizes.values()]
        kernels, kernel_gammas, kernel_betas = map(list, zip(*depthwise, strict=True))
        expand = map(side_by_side, zip(*expands, strict=True))
        gamma, beta = map(side_by_side, zip(*norms, strict=True))
        return Joint(*expand, kernel_gammas, kernel_betas, gamma, beta, kernels, projects)

    def _reachable(self, kernels: Tensor) -> Tensor:
        """The middle of kernels [C, 1, k, k]: taps further away than the map is large meet only padding."""
        size, cell = kernels.shape[-1], self.cells[0]
        return sliced(kernels, [len(kernels), 1, *(min(size, 2 * length - 1) for length in (cell.height, cell.width))])

    def _blocks(self, x: Tensor, numbers: Sequence[int], joint: Joint, mask: Tensor | None) -> list[Tensor]:
        """Σ mask · block(x), residuals apart, over the candidates `numbers` of each kernel size; mask [candidates], None: 1."""
        sizes = [self.kernels[number] for number in numbers]
        counts = [sizes.count(size) for size in dict.fromkeys(sizes)]
        block = self.ops[self.owners[numbers[0]]]
        stride, eps = block.depthwise[0][0].stride[0], block.expand[1].eps
        norms = [joint.gamma, joint.beta]
        if mask is not None:  # Σ mask · norm(y) is a norm with scaled affine parameters, summed over the candidates
            norms = [(mask[:, None] * row.unflatten(0, (len(mask), -1))).flatten() for row in norms]
        norms = [row.split([count * len(row) // len(numbers) for count in counts]) for row in norms]
        widths, several = [len(kernels) for kernels in joint.kernels], len(numbers) > 1
        affine = joint.expand_gamma, joint.expand_beta
        if self.shared:
            [active] = expanded(x, joint.expand, *affine, [len(joint.expand)], eps, several)
            actives = [sliced(active, [len(active), width]) for width in widths]
        else:
            actives = expanded(x, joint.expand, *affine, widths, eps, several)
        projects = iter(joint.project)
        parts = zip(actives, joint.kernels, joint.kernel_gammas, joint.kernel_betas, *norms, counts, strict=True)
        blends = []
        for active, kernels, kernel_gamma, kernel_beta, gamma, beta, count in parts:
            weights = [next(projects).to(active.dtype) for _ in range(count)]
            hidden = kernels.to(active.dtype), kernel_gamma, kernel_beta
            outputs = DepthwiseProject.apply(active, *hidden, stride, eps, self.made_for, self.shared, *weights)
            blends.append(NormSum.apply(outputs, gamma, beta, count, eps))
        return blends


@cache
def _module(build_key: tuple) -> nn.Module:
    """A cell's module without weights, to be called with some; in training mode, its norms by the batch."""
    with torch.device("meta"):
        module = build(Cell("", *build_key))
    for part in module.modules():
        part.track_running_stats = False
    return module


def _dense(weight: Tensor, groups: int) -> Tensor:
    """The matrix [c_out, c_in] of a 1×1 convolution with groups."""
    weight = weight.flatten(1)
    return torch.block_diag(*weight.chunk(groups)) if groups > 1 else weight


def _shuffled(rows: Tensor, groups: int) -> Tensor:
    """Rows, one a channel, in the order after a channel shuffle."""
    return rows.unflatten(0, (groups, -1)).transpose(0, 1).flatten(0, 1) if groups > 1 else rows
