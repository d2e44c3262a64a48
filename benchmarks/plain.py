"""The plain formulation of a supernet's training, which the benchmarks run beside ours.

NCHW, float32, candidates one by one, a host DataLoader with three transforms, metrics read at every step: what the
third-party implementations do that we know of.
"""

import os

import numpy as np
import torch
from steps import MEAN, STD, table_of
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gumbel_softmax
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from fbnet.search import StochasticSupernet


class Images(Dataset):
    """Of an image and its label, augmented by torchvision's transforms, one at a time."""

    def __init__(self, images: np.ndarray, labels: np.ndarray):
        self.images, self.labels = images, labels
        self.transform = transforms.Compose(
            [
                transforms.ToPILImage(),
                transforms.RandomCrop(images.shape[1], padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int):
        return self.transform(self.images[index]), int(self.labels[index])


def loader(dataset, batch_size: int) -> DataLoader:
    """With a worker for each core, at most four."""
    workers = min(len(os.sched_getaffinity(0)), 4)
    images = Images(dataset.train_images, dataset.train_labels)
    return DataLoader(images, batch_size, shuffle=True, num_workers=workers, drop_last=True, pin_memory=torch.cuda.is_available())


class PlainTraining:
    """The weight phase: `step` takes a batch from the loader to the end of the optimiser's step."""

    def __init__(self, space, dataset, batch_size: int, device: torch.device):
        self.supernet = StochasticSupernet(space, 10, table_of(space)).to(device)
        self.supernet.learn("weights")
        for module in self.supernet.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.track_running_stats = True
        self.optimizer = torch.optim.SGD(self.supernet.weights(), 0.01, momentum=0.9, weight_decay=1e-4)
        self.device, self.loader = device, loader(dataset, batch_size)
        self.batches = iter(())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        net = self.supernet
        x, latency_us = net.stem(x), net.fixed_latency_us
        for number, (layer, theta) in enumerate(zip(net.layers, net.theta, strict=True)):
            mask = gumbel_softmax(theta, 1.0)
            x = sum(weight * op(x) for weight, op in zip(mask, layer.ops.values(), strict=True))
            latency_us = latency_us + (mask * net.latencies_us[number]).sum()
        return net.classifier(net.dropout(net.head(x))), latency_us

    def next_batch(self) -> tuple[Tensor, Tensor]:
        """Images and labels on the device; the loader starts anew at its end."""
        try:
            images, labels = next(self.batches)
        except StopIteration:
            self.batches = iter(self.loader)
            images, labels = next(self.batches)
        return images.to(self.device), labels.to(self.device)

    def step(self) -> tuple[float, float, float]:
        images, labels = self.next_batch()
        logits, latency_us = self.forward(images)
        loss = cross_entropy(logits, labels) * 0.2 * torch.as_tensor(latency_us).log() ** 0.6
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        hits = logits.topk(5).indices == labels[:, None]
        return loss.item(), hits[:, 0].float().mean().item(), hits.any(1).float().mean().item()
