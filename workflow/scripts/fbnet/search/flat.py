"""The weights of a supernet's joined candidates in one tensor: a step works on that, not on some 1,600 of them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fbnet.search.mixed import Joint, MixedOperation

ZEROS = 16  # at the start of what is gathered, for what lies between the groups of a convolution; so many, for alignment


class FlatWeights:
    """The weights of the joined candidates of some layers as one parameter, `flat` [elements].

    The parameters of the layers' modules become `views` of it, without gradients of their own. A single gather hands out the
    weights of all layers as their blocks use them, with the zeros and the shuffles of groups. Its gradient is a gather too, in
    which nothing is summed: it has no order to depend on.
    """

    def __init__(self, layers: Sequence[MixedOperation]):
        blocks = [(layer, numbers) for layer in layers for numbers in layer.joined]
        modules = [module for layer, numbers in blocks for number in numbers for module in layer.candidate(number).modules()]
        owners = [(module, name) for module in modules for name, _ in module.named_parameters(recurse=False)]
        parameters = [getattr(module, name) for module, name in owners]
        counts = [parameter.numel() for parameter in parameters]
        device = parameters[0].device

        # Where each element goes is found by arranging the elements' numbers as the elements are to be arranged.
        numbers = torch.arange(ZEROS, ZEROS + sum(counts), dtype=torch.int32).split(counts)
        stand_in = {id(own): number.view(own.shape) for own, number in zip(parameters, numbers, strict=True)}
        joints = [layer.arranged(numbers, lambda parameter: stand_in[id(parameter)]) for layer, numbers in blocks]
        self.shapes = [joint.each(lambda part, _: part.shape) for joint in joints]
        kinds: tuple[list[Tensor], list[Tensor]] = ([numbers[0].new_zeros(ZEROS)], [])
        for joint in joints:
            joint.each(lambda part, in_product: kinds[in_product].append(part.flatten()))
        self.lengths = [[len(part) for part in kind] for kind in kinds]
        order = torch.cat([part for kind in kinds for part in kind])
        back = torch.zeros(ZEROS + sum(counts), dtype=torch.int32)  # to a zero, where no block uses an element
        back[order] = torch.arange(len(order), dtype=torch.int32)
        self.order, self.back = order.to(device), back[ZEROS:].to(device)
        self.counts = [len(layer.joined) for layer in layers]

        self.storage = torch.cat([parameters[0].new_zeros(ZEROS), *(own.detach().flatten() for own in parameters)])
        self.flat = nn.Parameter(self.storage[ZEROS:])
        self.views = []
        for (module, name), own, view in zip(owners, parameters, self.storage[ZEROS:].split(counts), strict=True):
            self.views.append(nn.Parameter(view.view(own.shape), requires_grad=False))
            setattr(module, name, self.views[-1])

    def joints(self, dtype: torch.dtype) -> list[list[Joint]]:
        """The weights of each layer's blocks; what goes into products with images has this data type."""
        exact, product = _Gather.apply(self.flat, self.storage, self.order, self.back).split(list(map(sum, self.lengths)))
        kinds = [iter(whole.split(lengths)) for whole, lengths in zip((exact, product.to(dtype)), self.lengths, strict=True)]
        next(kinds[0])  # the zeros
        joints = (shapes.each(lambda shape, in_product: next(kinds[in_product]).view(shape)) for shapes in self.shapes)
        return [[next(joints) for _ in range(count)] for count in self.counts]


class _Gather(torch.autograd.Function):
    """Elements of `storage` in `order`; `flat` is its part for which there is a gradient, `back` leads from there to it."""

    @staticmethod
    def forward(ctx, flat: Tensor, storage: Tensor, order: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(back)
        return storage.index_select(0, order)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        return grad.index_select(0, *ctx.saved_tensors), None, None, None
