"""Augmentation: each image of a batch in its own way, and both ways and their probabilities those of torchvision."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.stats import chi2_contingency, ks_2samp
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from fbnet.data.augmentation import (
    CROP_RATIO,
    DRAWS,
    ERASED_AREA,
    ERASED_RATIO,
    cropped,
    erased,
    jittered,
    rectangles,
    resized,
)
from fbnet.data.batches import Batches
from fbnet.data.dataset import Dataset

SIZE = 32


def noise(count, size=SIZE, resolution=SIZE):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8), np.arange(count) % 2
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    return Dataset("noise", ("a", "b"), resolution, mean, std, images, labels, images, labels)


def batches_of(dataset, batch_size, part=slice(None)):
    return Batches(dataset, np.arange(len(dataset.train_labels)), batch_size, torch.device("cpu"), part=part)


def test_crop_and_flip_take_the_window_they_are_told():
    image = torch.arange(1, 8 * 8 * 3 + 1, dtype=torch.uint8).view(1, 8, 8, 3)
    padded = torch.nn.functional.pad(image[0], (0, 0, 2, 2, 2, 2))
    for top, left, mirrored in ((0, 0, False), (4, 1, True), (2, 2, False), (3, 4, True)):
        window = padded[top : top + 8, left : left + 8]
        place = (torch.tensor([value]) for value in (top, left, mirrored))
        assert torch.equal(cropped(image, 2, *place)[0], window.flip(1) if mirrored else window)


def test_padded_crops_and_flips_have_the_statistics_of_torchvisions():
    """Every crop with and without flip is an outcome: both ways draw the same outcomes with the same probabilities."""
    image = torch.arange(1, 8 * 8 * 3 + 1, dtype=torch.uint8).view(8, 8, 3)
    batches = batches_of(noise(50, 8, 8), 8000)
    torch.manual_seed(0)
    ours = batches.augmented(image.expand(8000, 8, 8, 3), 2, True)
    usual = v2.Compose([v2.RandomCrop(8, padding=2), v2.RandomHorizontalFlip()])
    theirs = torch.stack([usual(image.permute(2, 0, 1)) for _ in range(4000)])
    theirs = batches.normalised(theirs.permute(0, 2, 3, 1))
    outcomes, drawn = torch.unique(torch.cat([ours, theirs]).flatten(1), dim=0, return_inverse=True)
    counts = np.stack([np.bincount(part.numpy(), minlength=len(outcomes)) for part in drawn.split([8000, 4000])])
    assert len(outcomes) == 5 * 5 * 2
    assert (counts > 0).all()
    assert chi2_contingency(counts).pvalue > 0.001


def test_a_resized_crop_is_torchvisions():
    """Enlarged and reduced, of any shape, wherever it lies: the same pixels."""
    images = torch.from_numpy(noise(200).train_images)
    torch.manual_seed(0)
    boxes = rectangles(torch.rand(DRAWS, 200), SIZE, SIZE, (0.02, 1.0), CROP_RATIO)
    for size in (20, 40):
        ours = resized(images, boxes, torch.arange(200) % 2 == 1, size)
        for number, (image, *box) in enumerate(zip(images, *(side.int().tolist() for side in boxes), strict=True)):
            usual = functional.resized_crop(image.permute(2, 0, 1).float(), *box, [size, size], antialias=True)
            usual = functional.horizontal_flip(usual) if number % 2 else usual
            assert torch.allclose(ours[number], usual.permute(1, 2, 0), atol=0.01), box


def same(ours, theirs, names):
    for name, one, other in zip(names, ours, theirs, strict=True):
        assert ks_2samp(one, other).pvalue > 0.001, name


@pytest.mark.parametrize(("area", "ratio"), [((0.08, 1.0), CROP_RATIO), ((0.5, 1.3), (0.2, 5.0))], ids=["usual", "often refused"])
def test_rectangles_to_crop_are_drawn_as_torchvision_does(area, ratio):
    torch.manual_seed(0)
    ours = rectangles(torch.rand(DRAWS, 4000), SIZE, SIZE, area, ratio)
    crop = v2.RandomResizedCrop(SIZE, scale=area, ratio=ratio)
    image = torch.zeros(3, SIZE, SIZE)
    theirs = [crop.make_params([image]) for _ in range(4000)]
    names = ("top", "left", "height", "width")
    same(ours, zip(*([one[name] for name in names] for one in theirs), strict=True), names)
    top, left, height, width = ours
    assert (top.min() >= 0) & (left.min() >= 0) & ((top + height).max() == SIZE) & ((left + width).max() == SIZE)


def test_rectangles_are_erased_as_torchvision_does():
    torch.manual_seed(0)
    boxes = rectangles(torch.rand(DRAWS, 3000), SIZE, SIZE - 1, ERASED_AREA, ERASED_RATIO)
    images = erased(torch.ones(3000, SIZE, SIZE, 3), boxes, torch.rand(3000) < 0.6)
    usual = v2.RandomErasing(0.6)
    theirs = torch.stack([usual(torch.ones(3, SIZE, SIZE)) for _ in range(3000)]).permute(0, 2, 3, 1)
    assert (images == images[..., :1]).all()
    found = []
    for some in (images, theirs):
        gone = some[..., 0] == 0
        found.append([gone.any(1).sum(1), gone.any(2).sum(1), gone.flatten(1).int().argmax(1)])
    assert abs((found[0][0] > 0).float().mean() - 0.6) < 0.03
    same(*found, ("width", "height", "first pixel"))


def test_brightness_contrast_and_saturation_are_torchvisions():
    images = torch.from_numpy(noise(8).train_images)
    factors = torch.rand(3, 8, generator=torch.Generator().manual_seed(0)) * 2
    adjust = functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        ours = jittered(images.float(), factors, order)
        for number, image in enumerate(images.permute(0, 3, 1, 2).float() / 255):
            for kind in order:
                image = adjust[kind](image, float(factors[kind, number]))
            assert torch.allclose(ours[number].permute(2, 0, 1), 255 * image, atol=0.01), order


def test_more_than_networks_take_is_cropped_at_random_in_training_and_in_the_middle_in_evaluation():
    dataset = noise(12, 40, SIZE)
    batches = batches_of(dataset, 12)
    middle = dataclasses.replace(dataset, train_images=dataset.train_images[:, 4:36, 4:36])
    [(ours, _)], [(usual, _)] = batches.plain(), batches_of(middle, 12).plain()
    assert torch.equal(ours, usual)
    images, _ = next(batches.training(0))
    torch.manual_seed(1)
    crops = batches.augmented(images, 4, False, crop="auto", least_area=0.25)
    assert crops.shape == (12, 3, SIZE, SIZE)
    torch.manual_seed(1)
    assert torch.equal(crops, batches.augmented(images, 0, False, crop="resized", least_area=0.25))
    torch.manual_seed(1)
    padded = batches.augmented(images, 0, False, crop="padded")
    assert torch.equal(padded, batches.normalised(images))
    assert not torch.equal(crops, padded)


def test_processes_that_share_a_batch_change_their_parts_as_one_would():
    dataset = noise(12, 40, SIZE)
    found = []
    for part in (slice(None), slice(0, 5), slice(5, 12)):
        batches = batches_of(dataset, 12, part)
        images, _ = next(batches.training(3))
        torch.manual_seed(0)
        found.append(batches.augmented(images, 4, True, crop="auto", jitter=0.5, erasing=0.5))
    assert torch.allclose(found[0], torch.cat(found[1:]), atol=1e-5)
    assert found[0].is_contiguous(memory_format=torch.channels_last)
