"""Images changed at random, a whole batch at a time and on its device, each image in its own way."""

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

CROP_RATIO = (3 / 4, 4 / 3)  # width by height of a resized crop (Szegedy et al. 2015)
ERASED_AREA, ERASED_RATIO = (0.02, 0.33), (0.3, 3.3)  # of the image; height by width (Zhong et al. 2017)
TRIES = 10  # rectangles that are drawn until one fits
DRAWS = 2 * TRIES + 2  # numbers that `rectangles` takes
GREY = (0.2989, 0.587, 0.114)  # luma of red, green and blue (ITU-R BT.601)


def centred(images, size: int):
    """The middle of images [n, H, W, 3], a tensor or an array, as [n, size, size, 3]."""
    top, left = ((side - size) // 2 for side in images.shape[1:3])
    return images[:, top : top + size, left : left + size]


def cropped(images: Tensor, padding: int, top: Tensor, left: Tensor, mirrored: Tensor) -> Tensor:
    """uint8 [n, H, W, 3] with zeros (black) around them, each cut at its `top` and `left` [n], and mirrored where it says so."""
    count, height, width, channels = images.shape
    padded = pad(images, (0, 0, *(padding,) * 4)).view(count * (height + 2 * padding), -1)
    numbers = torch.arange(max(count, height, width * channels), device=images.device)
    rows = (numbers[:count] * (height + 2 * padding) + top)[:, None] + numbers[:height]
    columns, channel = numbers[: width * channels] // channels, numbers[: width * channels] % channels
    columns = left[:, None] + torch.where(mirrored[:, None], width - 1 - columns, columns)
    picked = (columns * channels + channel)[:, None].expand(-1, height, -1)
    return padded.index_select(0, rows.flatten()).view(count, height, -1).gather(2, picked).view(images.shape)


def rectangles(
    draws: Tensor, size: int, largest: int, area: tuple[float, float], ratio: tuple[float, float]
) -> tuple[Tensor, ...]:
    """Top, left, height and width [n], whole numbers, of rectangles in images of `size`², from `draws` [DRAWS, n] in [0, 1).

    The area, as a share of the image's, is uniform, the logarithm of width by height too. Of TRIES the first is taken whose
    sides are at most `largest`; where none is, the whole image.
    """
    shares, ratios, places = draws[:TRIES], draws[TRIES : 2 * TRIES], draws[2 * TRIES :]
    areas = size * size * (area[0] + shares * (area[1] - area[0]))
    low, high = map(math.log, ratio)
    ratios = torch.exp(low + ratios * (high - low))
    widths, heights = (areas * ratios).sqrt().round(), (areas / ratios).sqrt().round()
    fits = (widths > 0) & (widths <= largest) & (heights > 0) & (heights <= largest)
    numbers = torch.arange(TRIES, device=draws.device)[:, None]
    first = torch.where(fits, numbers, TRIES).amin(0)
    chosen = first.clamp(max=TRIES - 1)[None]
    height, width = (torch.where(first < TRIES, sides.gather(0, chosen)[0], float(size)) for sides in (heights, widths))
    top, left = (places * (size + 1 - torch.stack([height, width]))).floor()
    return top, left, height, width


def resized(images: Tensor, boxes: tuple[Tensor, ...], mirrored: Tensor, size: int) -> Tensor:
    """Of images [n, S, S, 3] the rectangles `boxes`, mirrored where it says so, scaled to float [n, size, size, 3].

    Bilinear, with antialiasing, as two matrix products: of torchvision's `resized_crop` with antialias.
    """
    top, left, height, width = boxes
    count, side = images.shape[:2]
    rows = _weights(top, height, side, size)
    columns = _weights(left, width, side, size)
    columns = torch.where(mirrored[:, None, None], columns.flip(1), columns)
    lines = torch.bmm(rows, images.reshape(count, side, -1).float())  # [n, size, S · 3]
    lines = lines.view(count, size, side, 3).transpose(1, 2).reshape(count, side, -1)  # [n, S, size · 3]
    return torch.bmm(columns, lines).view(count, size, size, 3).transpose(1, 2).contiguous()


def _weights(start: Tensor, length: Tensor, side: int, size: int) -> Tensor:
    """What each of `size` pixels takes of each of `side`, within [start, start + length): [n, size, side]."""
    inside, outside = (torch.arange(count, device=start.device) + 0.5 for count in (side, size))
    scale = (length / size)[:, None, None]
    centres = start[:, None, None] + scale * outside[:, None]
    weights = (1 - (inside - centres).abs() / scale.clamp(min=1)).clamp(min=0)
    within = (inside > start[:, None]) & (inside < (start + length)[:, None])
    weights = weights * within[:, None]
    return weights / weights.sum(2, keepdim=True)


def jittered(images: Tensor, factors: Tensor, order: list[int]) -> Tensor:
    """Images [n, H, W, 3] in 0–255, their brightness, contrast and saturation multiplied by `factors` [3, n], in this order."""
    for kind in order:
        factor = factors[kind, :, None, None, None]
        if kind == 0:
            images = images * factor
        else:
            pale = sum(share * images[..., channel : channel + 1] for channel, share in enumerate(GREY))
            pale = pale.mean((1, 2), keepdim=True) if kind == 1 else pale
            images = pale + factor * (images - pale)
        images = images.clamp(0, 255)
    return images


def erased(images: Tensor, boxes: tuple[Tensor, ...], chosen: Tensor) -> Tensor:
    """Normalised images [n, S, S, 3], with 0 (the mean) within their rectangle where `chosen` [n] says so.

    One that is the whole image did not fit, and erases nothing.
    """
    size = images.shape[1]
    top, left, height, width = (value[:, None] for value in boxes)
    numbers = torch.arange(size, device=images.device)
    rows = (numbers >= top) & (numbers < top + height) & (chosen & (boxes[2] < size))[:, None]
    columns = (numbers >= left) & (numbers < left + width)
    return images.masked_fill((rows[:, :, None] & columns[:, None, :])[..., None], 0)
